"""An engine that is loaded in a process of its own: what is sent is what a bundle keeps."""

import dataclasses as dc
import importlib
import json

import numpy as np

from dlcv_deploy.isolate import isolated
from dlcv_deploy.types import Dim, Engine, PluginNeed


def reloaded(backend, engine, feeds):
    """The answers of an engine in a fresh process, which reads it and its plugin's library from bytes."""
    about = {
        "module": backend.__name__,
        "engine": {**{f.name: getattr(engine, f.name) for f in dc.fields(engine)}, "files": {}},
        "feeds": {name: [x.dtype.name, x.shape] for name, x in feeds.items()},
    }
    about["engine"] |= {"batch": dc.astuple(engine.batch), "plugin": dc.astuple(engine.plugin)}
    files = {f"engine {name}": data for name, data in engine.files.items()}
    files |= {f"feed {name}": x.tobytes() for name, x in feeds.items()}
    answer = isolated("helpers.lrn_engine:answer", json.loads(json.dumps(about)), files, what="engine", timeout_s=300)
    return {
        name: np.frombuffer(answer.files[name], dtype).reshape(shape) for name, (dtype, shape) in answer.value.items()
    }


def answer(request, files):
    """In that process."""
    sent, of = request["engine"], len("engine ")
    plugin = PluginNeed(*(tuple(value) if isinstance(value, list) else value for value in sent["plugin"]))
    engine = Engine(
        sent["backend"],
        sent["target"],
        sent["version"],
        {name[of:]: data for name, data in files.items() if name.startswith("engine ")},
        batch=Dim(*sent["batch"]),
        plugin=plugin,
    )
    feeds = {
        name: np.frombuffer(files[f"feed {name}"], dtype).reshape(shape)
        for name, (dtype, shape) in request["feeds"].items()
    }
    with importlib.import_module(request["module"]).load(engine) as session:
        found = session.run(feeds)
    about = {name: [y.dtype.name, y.shape] for name, y in found.items()}
    return about, {name: y.tobytes() for name, y in found.items()}
