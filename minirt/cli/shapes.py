"""Ground floor: what `inspect --format` sees: a document as the structs that Docker's client makes of it.

Docker's client reads the engine's JSON into Go's structs and hands those to the template. So a field that the document
leaves out is there with its zero value (`{{if .State.Health}}`), some have another name in Go (`.ID` for "Id",
`.HostConfig.NanoCPUs`), and a list that is null prints as `[]`. Only when that fails is the template tried again with
the document as it is, maps in maps, in which every name must be there: so `{{.Id}}` works, and so the errors about
names are `map has no entry for key`.

Rules of this room: tables, and the look through them. They say of each struct what the document alone cannot: the zero
values of fields that may be missing or null, in Docker's order, and which fields are maps.

Sources: the Engine API's types of "Inspect a container" and "Inspect an image".
"""

from __future__ import annotations

from minirt.cli.verbs import NO_LIST, NOTHING, Map, Struct
from minirt.errors import TemplateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minirt.cli.template import Template

# Go's name -> the document's, where they differ.
NAMES = {
    "ID": "Id", "CPUShares": "CpuShares", "NanoCPUs": "NanoCpus", "CPUPeriod": "CpuPeriod", "CPUQuota": "CpuQuota",
    "CPURealtimePeriod": "CpuRealtimePeriod", "CPURealtimeRuntime": "CpuRealtimeRuntime", "CPUCount": "CpuCount",
    "CPUPercent": "CpuPercent", "DNS": "Dns", "DNSOptions": "DnsOptions", "DNSSearch": "DnsSearch",
    "APIVersion": "ApiVersion",
}
_TEXTS, _THINGS = Map(None, ""), Map(None, Struct())
_PORTS = Map(None, NOTHING)  # whose keys are no plain text in Go, so that `index` finds them in the document only
# The struct under a field of that name ("" is the whole) -> field -> zero value. A field that is a map has a map.
ZEROS: dict[str, dict[str, Any]] = {
    "": {"SizeRw": None, "SizeRootFs": None, "ImageManifestDescriptor": None, "Variant": "", "OsVersion": "",
         "Container": "", "VirtualSize": 0, "Descriptor": None, "Manifests": NO_LIST},
    "State": {"Health": None},
    "Config": {"ExposedPorts": _PORTS, "Volumes": _THINGS, "Labels": _TEXTS, "Healthcheck": None, "StopSignal": "",
               "StopTimeout": None, "Shell": NO_LIST, "MacAddress": "", "NetworkDisabled": False, "ArgsEscaped": False},
    "HostConfig": {"PortBindings": _PORTS, "Annotations": _TEXTS, "StorageOpt": _TEXTS, "Tmpfs": _TEXTS,
                   "Sysctls": _TEXTS, "MemorySwappiness": None, "OomKillDisable": None, "PidsLimit": None, "Init": None,
                   "Mounts": NO_LIST, "Isolation": ""},
    "LogConfig": {"Config": _TEXTS},
    "Mounts": {"Type": "", "Name": "", "Source": "", "Destination": "", "Driver": "", "Mode": "", "RW": False,
               "Propagation": ""},
    "NetworkSettings": {"Bridge": "", "SandboxID": "", "SandboxKey": "", "Ports": _PORTS, "HairpinMode": False,
                        "LinkLocalIPv6Address": "", "LinkLocalIPv6PrefixLen": 0, "SecondaryIPAddresses": NO_LIST,
                        "SecondaryIPv6Addresses": NO_LIST, "EndpointID": "", "Gateway": "", "GlobalIPv6Address": "",
                        "GlobalIPv6PrefixLen": 0, "IPAddress": "", "IPPrefixLen": 0, "IPv6Gateway": "",
                        "MacAddress": "", "Networks": Map(None, None)},
    "Networks": {"IPAMConfig": None, "Links": NO_LIST, "Aliases": NO_LIST, "MacAddress": "", "DriverOpts": _TEXTS,
                 "GwPriority": 0, "NetworkID": "", "EndpointID": "", "Gateway": "", "IPAddress": "", "IPPrefixLen": 0,
                 "IPv6Gateway": "", "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "DNSNames": NO_LIST},
    "GraphDriver": {"Data": _TEXTS},
}


class Shape(Struct):
    """A part of a document, as one of Docker's structs. As JSON it is still the document."""

    def __init__(self, document: dict[str, Any], kind: str = "") -> None:
        """`kind`: the name of the field that it stands in."""
        super().__init__(document)
        self.zeros = ZEROS.get(kind, {})

    def field(self, name: str) -> Any:
        """The field of that name, in Go's spelling. Raises KeyError where there is none."""
        if name in NAMES.values():
            raise KeyError(name)
        spelled = NAMES.get(name, name)
        return self._shaped(spelled, self[spelled] if spelled in self else self.zeros[spelled])

    def printed(self) -> list[tuple[str, Any]]:
        """All fields, in Docker's order as far as the tables have it."""
        order = self.zeros if set(self) <= set(self.zeros) else {**self, **self.zeros}
        return [(name, self._shaped(name, self.get(name, self.zeros.get(name)))) for name in order]

    def _shaped(self, name: str, value: Any) -> Any:
        zero = self.zeros.get(name, NO_LIST)
        if value is None:
            return zero
        if isinstance(value, list):
            return [self._shaped(name, each) for each in value] if value else value
        if not isinstance(value, dict):
            return value
        if not isinstance(zero, Map):
            return Shape(value, name)
        nothing = None if zero.missing is None else NO_LIST
        return Map({key: nothing if each is None else Shape(each, name) if isinstance(each, dict) else
                    [Shape(part, name) for part in each] if isinstance(each, list) else each
                    for key, each in value.items()}, zero.missing)


def render(template: Template, document: dict[str, Any]) -> str:
    """A template's text for a document, as Docker's client gives it. Raises TemplateError."""
    try:
        return template.render(Shape(document))
    except TemplateError:
        return template.render(document, strict=True)
