"""Ground floor: templates, the language of `--format`, which is that of Go's package text/template.

A template is text with actions between `{{` and `}}`. An action is a pipeline (`.Name | printf "%.8s" | upper`: what
one command gives is the last argument of the next), the declaration of a variable, or a keyword: `if`, `with`, `range`
with their `else` and `end`, `break`, `continue`. The dot is the value at hand: at the top what is described, inside of
`with` and `range` their value; `$` stays what it was at the top. `{{-` and `-}}` take the white space beside them away.

`minirt.cli.syntax` makes a tree of the text; here it is walked with a value (of which kinds: `minirt.cli.verbs`); what
a template may call stands in `minirt.cli.functions`.

Rules of this room: the language, nothing of what is shown with it; builtins only.

Source: https://pkg.go.dev/text/template
"""

from __future__ import annotations

from minirt.cli import functions as known_functions
from minirt.cli import verbs
from minirt.cli.syntax import Node, Parser
from minirt.cli.verbs import NOTHING, Struct
from minirt.errors import MinirtError, TemplateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any, NoReturn

    from minirt.cli.functions import Function


DEEP = "it is nested too deeply"


class Template:
    """A parsed template. `render` gives its text for a value."""

    def __init__(self, text: str, name: str = "") -> None:
        """Parses `text`; `name` stands in errors. Raises TemplateError where it is malformed."""
        self.text, self.name = text, name
        try:
            self.body, _ = Parser(text, name).statements(top=True)
        except RecursionError:
            raise TemplateError(f"template: {name}:1: {DEEP}") from None

    def render(self, value: Any, functions: Mapping[str, Function] | None = None, strict: bool = False) -> str:
        """The text for `value`. `functions` replace those of the same name; `strict`: a map must have the keys that
        it is asked for. Raises TemplateError where the template does not fit the value."""
        return "".join(self.pieces(value, functions, strict))

    def pieces(self, value: Any, functions: Mapping[str, Function] | None = None, strict: bool = False
               ) -> Iterator[str]:
        """The same, piece by piece, so that what comes before an error is not lost."""
        try:
            walk = _Walk(self, value, {**known_functions.TABLE, **(functions or {})}, strict)
            yield from walk.statements(value, self.body)
        except RecursionError:
            raise TemplateError(f"template: {self.name}:1: {DEEP}") from None


class _Leave(Exception):
    """`break` or `continue`, on its way to the loop."""


class _Walk:
    """One rendering: the variables of this moment, and the node that an error would name."""

    def __init__(self, template: Template, value: Any, functions: Mapping[str, Function], strict: bool) -> None:
        self.template, self.functions, self.strict = template, functions, strict
        self.variables: list[tuple[str, Any]] = [("$", value)]
        self.node = Node("dot", 0, ".")

    def fail(self, message: str) -> NoReturn:
        """Ends the rendering with an error that names the node at hand, its line and its byte in that line."""
        text, name = self.template.text[:self.node.at], self.template.name
        line, start = 1 + text.count("\n"), text.rfind("\n") + 1
        place = f"{name}:{line}:{len(text[start:].encode('utf-8', 'surrogateescape'))}"
        raise TemplateError(f"template: {place}: executing {verbs.quoted(name)} at <{self.node.text}>: {message}")

    def statements(self, dot: Any, body: Sequence[Any]) -> Iterator[str]:
        """The text of statements, with `dot` as their dot."""
        for each in body:
            if isinstance(each, str):
                yield each
                continue
            word = each[0]
            if not word:
                value = self.pipe(dot, each[1])
                if not each[1].value[0]:  # a declaration prints nothing
                    yield verbs.shown(value)
                continue
            if word in ("break", "continue"):
                raise _Leave(word)
            known = len(self.variables)
            _, pipe, inside, otherwise = each
            value = self.pipe(dot, pipe)
            if word == "range":
                yield from self.loop(dot, value, each)
            elif verbs.truth(value):
                yield from self.statements(value if word == "with" else dot, inside)
            else:
                yield from self.statements(dot, otherwise)
            del self.variables[known:]

    def loop(self, dot: Any, value: Any, statement: tuple[Any, ...]) -> Iterator[str]:
        """`range`: over a list, a map in the order of its keys, or the numbers below one."""
        _, pipe, body, otherwise = statement
        names, how, _ = pipe.value
        if isinstance(value, dict) and not isinstance(value, Struct):
            pairs: Any = ((key, _held(value[key])) for key in sorted(value))
        elif isinstance(value, (list, tuple)):
            pairs = enumerate(map(_held, value))
        elif isinstance(value, int) and not isinstance(value, bool):
            if len(names) > 1:
                self.fail(f"can't use {value} to iterate over more than one variable")
            pairs = ((number, number) for number in range(value))
        elif value is None or value is NOTHING:
            pairs = ()
        else:
            self.fail(f"range can't iterate over {verbs.shown(value)}")
        if how == ":=":
            del self.variables[len(self.variables) - len(names):]  # each round has its own
        empty, known = True, len(self.variables)
        for key, item in pairs:
            empty = False
            for name, each in zip(names, (key, item) if len(names) > 1 else (item,), strict=False):
                self.set(name, each, how)
            try:
                yield from self.statements(item, body)
            except _Leave as leave:
                if str(leave) == "break":
                    break
            finally:
                del self.variables[known:]
        if empty:
            yield from self.statements(dot, otherwise)

    def get(self, name: str) -> Any:
        """The value of the nearest variable of that name."""
        for known, value in reversed(self.variables):
            if known == name:
                return value
        self.fail(f"undefined variable: {name}")

    def set(self, name: str, value: Any, how: str) -> None:
        """Declares a variable (`:=`), or gives another value to the nearest of that name (`=`)."""
        if how == ":=":
            self.variables.append((name, value))
            return
        for index in reversed(range(len(self.variables))):
            if self.variables[index][0] == name:
                self.variables[index] = (name, value)
                return
        self.fail(f"undefined variable: {name}")

    def pipe(self, dot: Any, pipe: Node) -> Any:
        """The value of a pipeline; its variables are set."""
        self.node = pipe
        names, how, commands = pipe.value
        passed: list[Any] = []
        for command in commands:
            passed = [self.command(dot, command, passed)]
        for name in names:
            self.set(name, passed[0], how)
        return passed[0]

    def command(self, dot: Any, command: Node, passed: list[Any]) -> Any:
        """The value of one command; `passed` is what the command before it gave."""
        first, *arguments = command.value
        if first.kind == "function":
            self.node = first
            return self.call(dot, first.value, command, self.functions[first.value], arguments, passed)
        if first.kind in ("field", "variable", "chain"):
            return self.operand(dot, first, command, arguments, passed)
        if first.kind != "pipe":
            self.node = first
        if arguments or passed:
            self.fail(f"can't give argument to non-function {first.text}")
        if first.kind == "nil":
            self.fail("nil is not a command")
        return self.operand(dot, first, command)

    def operand(self, dot: Any, node: Node, command: Node, arguments: Sequence[Node] = (),
                passed: Sequence[Any] = ()) -> Any:
        """The value of an operand; `arguments` and `passed` are for the method that a field may be."""
        self.node = node
        names: Sequence[str] = ()
        value = node.value if node.kind == "constant" else dot if node.kind in ("dot", "field") else None
        if node.kind == "field":
            names = node.value
        elif node.kind == "variable":
            name, *names = node.value
            value = self.get(name)
        elif node.kind == "chain":
            value, names = self.operand(dot, node.value[0], command), node.value[1]
        elif node.kind == "pipe":
            value = self.pipe(dot, node)
        elif node.kind == "function":
            value = self.call(dot, node.value, node, self.functions[node.value], (), ())
        if not names and (arguments or passed):
            self.fail(f"can't give argument to non-function {node.text}")
        for number, name in enumerate(names):
            last = number == len(names) - 1
            value = self.member(dot, value, name, node, arguments if last else (), passed if last else (), number == 0)
        return value

    def member(self, dot: Any, value: Any, name: str, node: Node, arguments: Sequence[Node], passed: Sequence[Any],
               first: bool) -> Any:
        """The field of that name; where it is a method (a callable, of one text) what that gives. `first`: of a value,
        not of another field."""
        if value is NOTHING:
            if self.strict:
                self.fail(f"nil data; no entry for key {verbs.quoted(name)}")
            return NOTHING
        if value is None:
            self.fail(f"nil pointer evaluating {name}")
        if not isinstance(value, dict):
            kind = self.type_name(value) if first or not self.strict else "interface {}"
            self.fail(f"can't evaluate field {name} in type {kind}")
        try:
            found = value.field(name) if isinstance(value, Struct) else _held(value[name])
        except KeyError:
            if isinstance(value, Struct):
                self.fail(f"can't evaluate field {name}: there is {', '.join(sorted(value)) or 'none'}")
            found = NOTHING
        if callable(found):
            return self.call(dot, name, node, (found, ("string",)), arguments, passed)
        if arguments or passed:
            self.fail(f"{name} is not a method but has arguments")
        if self.strict and name not in value:
            self.fail(f"map has no entry for key {verbs.quoted(name)}")
        return found

    def call(self, dot: Any, name: str, node: Node, function: Function, arguments: Sequence[Node],
             passed: Sequence[Any]) -> Any:
        """Calls a function with arguments and what was passed on, each of the type that the function takes."""
        run, types = function
        fixed, given = list(types), len(arguments) + len(passed)
        if types and types[-1].startswith("..."):
            if given < len(types) - 1:
                self.fail(f"wrong number of args for {name}: want at least {len(types) - 1} got {len(arguments)}")
            fixed = [*types[:-1], *[types[-1][3:]] * given][:given]
        elif given != len(types):
            self.fail(f"wrong number of args for {name}: want {len(types)} got {given}")
        values = []
        for kind, argument in zip(fixed, arguments, strict=False):
            values.append(self.argument(dot, kind, argument))
            if name in ("and", "or") and verbs.truth(values[-1]) == (name == "or"):
                return values[-1]  # what decides is the last that is evaluated
        values += [self.fitting(value, fixed[-1]) for value in passed]
        try:
            return run(*values)
        except MinirtError as error:
            self.node = node
            self.fail(f"error calling {name}: {error}")

    def argument(self, dot: Any, kind: str, node: Node) -> Any:
        """An argument's value. A constant must be of the very type."""
        self.node = node
        if node.kind == "nil":
            return None if kind in ("any", "[]string") else self.fail(f"cannot assign nil to {kind}")
        if node.kind == "constant" and kind in ("string", "int") and verbs.type_name(node.value) != kind:
            self.fail(f"expected {'integer' if kind == 'int' else kind}; found {node.text}")
        if node.kind == "constant" and kind == "[]string":
            self.fail(f"can't handle {node.text} for arg of type []string")
        return self.fitting(self.operand(dot, node, node), kind)

    def fitting(self, value: Any, kind: str) -> Any:
        """A value where `kind` is expected."""
        if kind == "any" or (kind == "[]string" and (value is None or value is NOTHING)):
            return None if value is NOTHING else value
        if value is NOTHING:
            self.fail(f"invalid value; expected {kind}")
        if kind == "[]string" and isinstance(value, (list, tuple)) and all(isinstance(each, str) for each in value):
            return value
        if verbs.type_name(value) != kind:
            self.fail(f"wrong type for value; expected {kind}; got {self.type_name(value)}")
        return value

    def type_name(self, value: Any) -> str:
        """The name of a value's type; of a document as it is, nothing is known of what is in a list or a map."""
        name = verbs.type_name(value)
        return name.replace("]string", "]interface {}").replace("[interface {}", "[string") if self.strict else name


def _held(value: Any) -> Any:
    """What a map or a list holds: null there is no value."""
    return NOTHING if value is None else value
