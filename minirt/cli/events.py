"""`minirt events`: what happened to containers and images, and what happens, as Docker tells it."""

from __future__ import annotations

import time

from minirt import events as log
from minirt import state
from minirt.cli import format as formats
from minirt.cli.logs import moment
from minirt.cli.options import Command, Option, Options
from minirt.cli.verbs import Struct
from minirt.errors import TemplateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minirt.cli.template import Template

WRONG = "Error parsing format"  # how Docker's sentence about a template begins, here
REST = 0.1  # seconds between two looks at the log
# Those of Docker's that can meet something here, and those of things that there are not yet.
FILTERS = ("container", "event", "image", "label", "scope", "type",
           "config", "daemon", "network", "node", "plugin", "secret", "service", "volume")


def events(options: Options) -> int:
    """`minirt events`."""
    filters = formats.filters(options["filter"], FILTERS)
    form = "json" if options["format"] == "{{json .}}" else options["format"]
    template = None if form in ("", "json") else formats.parse(form, WRONG, formats.MALFORMED)
    since = moment(options, "since") or state.now()
    until = moment(options, "until")
    reader = log.Reader()
    while True:
        over = until and state.now() > until  # asked before reading: so nothing is missed
        for event in reader.read():
            when = state.format_time(event["timeNano"])  # times of one form compare as text
            if since <= when and (not until or when <= until) and passes(event, filters):
                try:
                    formats.show(shown(event, template, form) + "\n")
                except TemplateError as error:
                    raise formats.told(error, WRONG, formats.MALFORMED) from None
        if over:
            return 0
        time.sleep(REST)


def passes(event: dict[str, Any], filters: dict[str, list[str]]) -> bool:
    """Whether an event is one that was asked for: of each kind of filter given one value must fit, of labels all."""
    about, kind, id = event["Actor"]["Attributes"], event["Type"], event["Actor"]["ID"]
    images = [id, about.get("name" if kind == "image" else "image", "")]
    images += [each.rpartition(":")[0] for each in images]  # without a tag
    labels = [*about, *(f"{key}={value}" for key, value in about.items())]
    exact = {"event": (event["Action"], event["Action"].partition(":")[0]), "type": (kind,), "scope": ("local",),
             "image": images}
    for name, wanted in filters.items():
        if name == "label":
            fits = all(value in labels for value in wanted)
        elif name in exact:
            fits = any(value in exact[name] for value in wanted)
        else:  # a thing by its name, or the beginning of its id
            own = (id, about.get("name", ""))
            fits = kind == name and any(each.startswith(value) for value in wanted for each in own)
        if not fits:
            return False
    return True


def shown(event: dict[str, Any], template: Template | None, form: str) -> str:
    """An event as a line: `TIME TYPE ACTION ID (KEY=VALUE, ...)`, or as the format that was asked for."""
    about = dict(sorted(event["Actor"]["Attributes"].items()))
    if not template and not form:
        seconds, rest = divmod(event["timeNano"], 1_000_000_000)
        zone = time.strftime("%z", time.localtime(seconds))
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(seconds)) + f".{rest:09}"
        stamp += "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
        told = ", ".join(f"{key}={value}" for key, value in about.items())
        return f"{stamp} {event['Type']} {event['Action']} {event['Actor']['ID']}" + (f" ({told})" if told else "")
    old: dict[str, Any] = {}
    if event["Type"] in ("container", "image"):
        named = {"id": event["Actor"]["ID"], "from": about.get("image", "") if event["Type"] == "container" else ""}
        old = {"status": event["Action"], **{name: value for name, value in named.items() if value}}
    whole = {**old, "Type": event["Type"], "Action": event["Action"],
             "Actor": {"ID": event["Actor"]["ID"], "Attributes": about}, "scope": "local",
             "time": event["timeNano"] // 1_000_000_000, "timeNano": event["timeNano"]}
    if not template:
        return state.dumps(whole, docker=True)
    names = {"status": "Status", "id": "ID", "from": "From", "scope": "Scope", "time": "Time", "timeNano": "TimeNano"}
    row = {names.get(key, key): value for key, value in whole.items()}
    return template.render(Struct({"Status": "", "ID": "", "From": "", **row, "Actor": Struct(whole["Actor"])}))


COMMANDS = {
    "events": Command(
        "events",
        "[OPTIONS]",
        "Get real time events from the server",
        (
            Option("filter", "list", "Filter output based on conditions provided", short="f"),
            Option("format", "string", "Format output: 'json' or a template"),
            Option("since", "string", "Show all events created since timestamp"),
            Option("until", "string", "Stream events until this timestamp"),
        ),
        action=events,
        maximum=0,
        aliases=("system events", "events"),
    ),
}
