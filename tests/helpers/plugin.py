"""A plugin's library that says of itself what a test wants; nothing can load it."""

import json

SAID = {"schema": 1, "tensorrt": "10.14.1", "architectures": [75, 90], "cuda": "13.0", "source": "ab" * 32}


def library_bytes(said=None, machine=62, sections=3, **changes):
    """An ELF header of a 64-bit library, what it says of itself, and a table of sections at the end."""
    text = json.dumps({**SAID, **changes}) if said is None else said
    body = b".text\0DLCV_PLUGIN_INFO" + text.encode() + b"\0DLCV_PLUGIN_INFO is no mark\0"
    table = 64 + len(body)
    head = bytearray(64)
    head[:20] = b"\x7fELF\x02\x01\x01" + bytes(9) + (3).to_bytes(2, "little") + machine.to_bytes(2, "little")
    head[40:48] = table.to_bytes(8, "little")
    head[58:62] = (64).to_bytes(2, "little") + sections.to_bytes(2, "little")
    return bytes(head) + body + bytes(64 * sections)
