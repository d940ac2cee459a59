"""The page in a browser: on a phone, on a screen, in the dark and on paper, without a complaint or a request."""

import dataclasses as dc
import re

import pytest
from helpers import reports
from helpers.chromium import Browser, find_chromium

from dlcv_deploy.parity.values import ClassCount, Flip
from dlcv_deploy.report.html import page

PHONE, SCREEN = 375, 1280
BACKGROUND = "getComputedStyle(document.body).backgroundColor"
FITS = "[document.documentElement.scrollWidth, innerWidth]"
CUT = """[...document.querySelectorAll('main *, header *')].filter(e => !e.closest('.scroll, svg, details:not([open])')
  && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"""
SMALL = """Math.min(...[...document.querySelectorAll('svg text')].filter(e => e.getBoundingClientRect().width)
  .map(e => parseFloat(getComputedStyle(e).fontSize) * e.getScreenCTM().a))"""
OVERLAPS = """[...document.querySelectorAll('svg')].flatMap(svg => {
  const found = [...svg.querySelectorAll('text')].map(e => [e.textContent, e.getBoundingClientRect()])
    .filter(([, r]) => r.width);
  return found.flatMap(([a, r], i) => found.slice(i + 1)
    .filter(([, q]) => Math.min(r.right, q.right) - Math.max(r.left, q.left) > 1
      && Math.min(r.bottom, q.bottom) - Math.max(r.top, q.top) > 4)
    .map(([b]) => `${a} / ${b}`)); })"""
CONTRAST = """(() => {
  const luminance = colour => { const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = e => { while (e && /rgba\\(.*, 0\\)/.test(getComputedStyle(e).backgroundColor)) e = e.parentElement;
    return e ? getComputedStyle(e).backgroundColor : getComputedStyle(document.body).backgroundColor; };
  return Math.min(...[...document.querySelectorAll('p, th, td, h1, h2, h3, dt, dd, a, summary, .badge, svg text')]
    .map(e => { const said = getComputedStyle(e), svg = e.closest('svg');
      const [a, b] = [luminance(svg ? said.fill : said.color), luminance(ground(svg ? svg.parentElement : e))];
      return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); })); })()"""


@pytest.fixture(scope="module")
def browser(need):
    need("chromium")
    with Browser(find_chromium()) as found:
        yield found


@pytest.fixture(scope="module", params=["full", "bare", "long"])
def file(request, tmp_path_factory):
    report = reports.bare() if request.param == "bare" else reports.full()
    path = tmp_path_factory.mktemp("pages") / f"{request.param}.html"
    path.write_text(
        page(long(report) if request.param == "long" else report, classes=("a" * 60,) * 4), encoding="utf-8"
    )
    return path


def long(report):
    """Every name is a long one, without a space to break at."""
    name = "n" * 120
    parity = report.parity[0]
    leg = parity.legs[2]
    flips = (Flip(0, f"{name}.png", 0, 0, 1, 0.5, 0.25, reports.PIXEL),)
    leg = dc.replace(leg, flips=flips, classes=(ClassCount(0, 9, 9, 8, 1, 0),))
    return dc.replace(
        report,
        model=name,
        warnings=(name,),
        commands=(f"dlcv-deploy build {name}",),
        parity=(dc.replace(parity, source=name, legs=(*parity.legs[:2], leg)),),
        environment=dc.replace(report.environment, packages={"torch": name}),
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, SCREEN])
def test_a_page_fits_and_can_be_read(browser, file, width, scheme):
    browser.resize(width)
    browser.scheme(scheme)
    browser.open(file)
    wide, room = browser.value(FITS)
    assert wide <= room == width
    assert browser.value(CUT) == []
    assert browser.value(SMALL) is None or browser.value(SMALL) >= 9.5  # None where nothing is drawn
    assert browser.value(CONTRAST) >= 4.5
    light = sum(map(int, re.findall(r"\d+", browser.value(BACKGROUND)))) > 384
    assert light is (scheme == "light")
    assert len(browser.screenshot()) > 10_000
    assert browser.complaints() == []
    assert browser.loads() == []


def test_words_on_plots_do_not_cover_each_other(browser, file):
    browser.resize(PHONE)
    browser.scheme("light")
    browser.open(file)
    browser.value("document.querySelectorAll('details').forEach(e => e.open = true)")
    assert browser.value(OVERLAPS) == []


def test_a_page_is_printed_light_and_whole(browser, file):
    browser.resize(SCREEN)
    browser.scheme("dark")
    browser.open(file)
    browser("Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    assert browser.value(BACKGROUND) == "rgb(255, 255, 255)"
    assert browser.value(CONTRAST) >= 4.5
    browser("Emulation.setEmulatedMedia", media="", features=[])
    printed = browser.pdf()
    assert printed.startswith(b"%PDF-")
    assert len(printed) > 10_000
    assert browser.complaints() == []


def test_the_browser_tells_of_what_a_page_must_not_do(browser, tmp_path):
    file = tmp_path / "bad.html"
    head = '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'">'
    file.write_text(f"{head}<p style='width: 900px'>x</p><script>1</script><img src='other.png'>")
    browser.resize(PHONE)
    browser.open(file)
    assert browser.complaints()
    wide, room = browser.value(FITS)
    assert not wide <= room == PHONE
