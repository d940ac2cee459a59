"""A page taken apart, and refused where a tag is left open or closed twice."""

import math
import re
from html.parser import HTMLParser

VOID = {"meta", "img", "br"}
NUMBER = re.compile(r"-?(?:\d+\.?\d*(?:e[+-]?\d+)?|nan|inf)")
DRAWN = {"x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "width", "height", "d", "viewbox"}


class Page(HTMLParser):
    """Tags with their attributes in order, the text, the ids of sections, titles of plots."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.stack, self.texts, self.titles, self.declared = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.stack == [], f"left open: {self.stack}"

    def handle_decl(self, decl):
        self.declared.append(decl)

    def handle_starttag(self, tag, attributes):
        assert len({name for name, _ in attributes}) == len(attributes), f"<{tag}> says something twice"
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attributes):
        raise AssertionError(f"<{tag}/> closes itself, which HTML does not know")

    def handle_endtag(self, tag):
        assert self.stack, f"</{tag}> closes nothing"
        assert self.stack.pop() == tag, f"</{tag}> closes another"

    def handle_data(self, data):
        if self.stack[-1:] != ["style"]:
            self.texts.append(data)
        if self.stack[-2:] == ["svg", "title"]:
            self.titles.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    @property
    def sections(self):
        return [attributes["id"] for tag, attributes in self.tags if tag == "section"]

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    def with_class(self, name):
        return [attributes for _, attributes in self.tags if name in (attributes.get("class") or "").split()]

    def check_drawings(self):
        """Every place on a drawing is a number, near its canvas."""
        for tag, attributes in self.tags:
            for name, value in attributes.items():
                if name in DRAWN and tag not in ("meta", "img"):
                    for found in NUMBER.findall(value.lower()):
                        assert math.isfinite(float(found)), (tag, attributes)
                        assert name == "viewbox" or tag == "svg" or -400 <= float(found) <= 4000, (tag, attributes)
