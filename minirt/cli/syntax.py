"""Ground floor: the grammar of `--format`: a template's text becomes a tree. `minirt.cli.template` walks it.

Two steps, both here: `tokens` cuts the text, `Parser` makes statements of the tokens. Every node of the tree knows its
place and its spelling, because an error must name both. A template that is none is refused in the words of Go's
package, which Docker's users have seen before: `template: :1: unclosed action`.

`define`, `template` and `block` are refused: a line of output has no use for parts.

Source: https://pkg.go.dev/text/template
"""

from __future__ import annotations

from minirt.cli import functions, verbs
from minirt.errors import TemplateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, NoReturn

KEYWORDS = ("if", "else", "end", "range", "with", "break", "continue", "define", "template", "block")
SPACE = " \t\r\n"
_SPACES = tuple(SPACE)  # for the question whether a letter, which may be none at the end, is one
_DIGITS = tuple("0123456789")


# -- cutting -----------------------------------------------------------------------------------------------------

class Token:
    """A piece of a template. Kinds: "text", "{{", "}}", "space", "string", "number", "field", "variable", "word" (a
    function, a keyword, `true`, `nil`), "char" (`.`, `(`, `)`, `|`, `,`, `:=`, `=`, ...), "error", "end of file"."""

    __slots__ = ("at", "kind", "text")

    def __init__(self, kind: str, text: str, at: int) -> None:
        self.kind, self.text, self.at = kind, text, at

    def __str__(self) -> str:
        if self.kind in ("error", "end of file"):
            return self.text
        if self.text in (*KEYWORDS, ".", "nil"):
            return f"<{self.text}>"
        return verbs.quoted(self.text[:10]) + "..." if len(self.text) > 10 else verbs.quoted(self.text)


def tokens(text: str) -> Iterator[Token]:
    """Cuts a template; the last token is "end of file" or "error"."""
    at, trimmed = 0, False
    while at < len(text):
        begin = text.find("{{", at)
        plain = text[at:begin] if begin >= 0 else text[at:]
        trims = text[begin + 2:begin + 3] == "-" and text[begin + 3:begin + 4] in _SPACES
        shown = plain.lstrip(SPACE) if trimmed else plain
        shown = shown.rstrip(SPACE) if begin >= 0 and trims else shown
        if shown:
            yield Token("text", shown, at)
        if begin < 0:
            break
        at = begin + (4 if trims else 2)
        if text.startswith("/*", at):
            end = text.find("*/", at) + 2
            if end < 2:
                yield Token("error", "unclosed comment", begin)
                return
            at, trimmed = _right(text, end)
            if at == end:
                yield Token("error", "comment ends before closing delimiter", begin)
                return
            continue
        yield Token("{{", "{{", begin)
        for token in _inside(text, at):
            yield token
            if token.kind == "error":
                return
        trimmed = token.text != "}}"
        at = token.at + len(token.text)
    yield Token("end of file", "EOF", len(text))


def _right(text: str, at: int) -> tuple[int, bool]:
    """Where the `}}` or ` -}}` that stands here ends, `at` itself when there is none; and whether it trims."""
    if text[at:at + 1] in _SPACES and text.startswith("-}}", at + 1):
        return at + 4, True
    return (at + 2 if text.startswith("}}", at) else at), False


def _inside(text: str, at: int) -> Iterator[Token]:
    """The tokens of one action, with its `}}`, or with an error as the last."""
    depth = 0
    while True:
        token = _token(text, at)
        if token.kind == "char":
            depth += {"(": 1, ")": -1}.get(token.text, 0)
        if depth < 0:
            token = Token("error", "unexpected right paren", at)
        elif depth and token.kind == "}}":
            token = Token("error", "unclosed left paren", at)
        yield token
        if token.kind in ("}}", "error"):
            return
        at += len(token.text)


def _token(text: str, at: int) -> Token:
    """The token that begins here, within an action."""
    letter, (end, _) = text[at:at + 1], _right(text, at)
    if end > at:
        return Token("}}", text[at:end], at)
    if not letter:
        return Token("error", "unclosed action", at)
    if letter in "\"`'":
        return _quotation(text, at)
    end = at + 1
    if letter in SPACE:
        while text[end:end + 1] in _SPACES and _right(text, end)[0] == end:
            end += 1
        return Token("space", text[at:end], at)
    if letter in "+-0123456789" or (letter == "." and text[end:end + 1] in _DIGITS):
        while _is_word(text[end:end + 1]) or text[end:end + 1] == "." or (
                text[end:end + 1] in ("+", "-") and text[end - 1] in "eE" and not text[at:end].startswith("0x")):
            end += 1
        return Token("number", text[at:end], at)
    if letter in ".$" or _is_word(letter):
        while _is_word(text[end:end + 1]):
            end += 1
        if end < len(text) and text[end] not in " \t\r\n.,|:)(" and _right(text, end)[0] == end:
            return Token("error", f"bad character {_code_point(text[end])}", at)
        kind = "char" if text[at:end] == "." else {".": "field", "$": "variable"}.get(letter, "word")
        return Token(kind, text[at:end], at)
    if letter == ":":
        return Token("char", ":=", at) if text[end:end + 1] == "=" else Token("error", "expected :=", at)
    if not (letter.isascii() and letter.isprintable()):
        return Token("error", f"unrecognized character in action: {_code_point(letter)}", at)
    return Token("char", letter, at)


def _quotation(text: str, at: int) -> Token:
    """A string in one of the two kinds of quotes, or a letter between apostrophes, which is a number."""
    quote, end = text[at], at + 1
    while (letter := text[end:end + 1]) != quote:
        if not letter or (letter == "\n" and quote != "`"):
            what = {'"': "quoted string", "`": "raw quoted string", "'": "character constant"}[quote]
            return Token("error", f"unterminated {what}", at)
        end += 2 if letter == "\\" and quote != "`" else 1
    return Token("number" if quote == "'" else "string", text[at:end + 1], at)


def _is_word(letter: str) -> bool:
    return letter.isalnum() or letter == "_"


def _code_point(letter: str) -> str:
    return f"U+{ord(letter):04X}" + (f" '{letter}'" if letter.isprintable() else "")


# -- parsing -----------------------------------------------------------------------------------------------------

class Node:
    """A part of an action: its kind, its place, its spelling, and what it is made of.

    Kinds and values: "constant", the value; "nil"; "dot"; "field", its names; "variable", its name and fields;
    "function", its name; "chain", a node and the names of fields; "command", its operands; "pipe", the variables
    that it sets, how (":=", "="), and its commands.
    """

    __slots__ = ("at", "kind", "text", "value")

    def __init__(self, kind: str, at: int, text: str, value: Any = None) -> None:
        self.kind, self.at, self.text, self.value = kind, at, text, value

    def __str__(self) -> str:
        return f"({self.text})" if self.kind == "pipe" else self.text  # as a part of another


class Parser:
    """Makes of tokens a list of statements: text, or (keyword, node, list, list of `else`), keyword "" for a value."""

    def __init__(self, text: str, name: str) -> None:
        self.text, self.name = text, name
        self.tokens = tokens(text)
        self.token = next(self.tokens)
        self.variables, self.loops = ["$"], 0

    def fail(self, message: str) -> NoReturn:
        """Ends the parsing with an error at the line that was reached."""
        line = 1 + self.text.count("\n", 0, self.token.at)
        raise TemplateError(f"template: {self.name}:{line}: {message}")

    def advance(self) -> Token:
        """Goes on to the next token; the one that it leaves."""
        token = self.token
        self.token = next(self.tokens, token)
        return token

    def skip_space(self) -> Token:
        """The next token that is no space."""
        while self.token.kind == "space":
            self.advance()
        if self.token.kind == "error":
            self.fail(self.token.text)
        return self.token

    def here(self, *texts: str) -> bool:
        """Whether one of these is next, but for spaces: characters, or the `}}` that ends the action."""
        token = self.skip_space()
        return (token.text if token.kind == "char" else token.kind) in texts

    def statements(self, top: bool = False) -> tuple[list[Any], str]:
        """Statements up to the `end` or `else` that closes them, or at the top to the end; and what closed them."""
        result: list[Any] = []
        while self.skip_space().kind != "end of file":
            token = self.advance()
            if token.kind == "text":
                result.append(token.text)
                continue
            if token.kind != "{{":
                self.fail(f"unexpected {token} in input")
            word = self.skip_space().text
            if self.token.kind != "word" or word not in KEYWORDS:
                result.append(("", self.pipeline("command")))
                self.close("command")
                continue
            keyword = self.advance()
            if word not in ("end", "else"):
                result.append(self.control(keyword))
                continue
            if word == "end" or self.skip_space().text not in ("if", "with"):
                self.close(word)
            if top:
                self.fail(f"unexpected {{{{{word}}}}}")
            return result, word
        if not top:
            self.fail("unexpected EOF")
        return result, ""

    def close(self, context: str) -> None:
        """Takes the `}}` of an action that has nothing more in it."""
        if not self.here("}}"):
            self.fail(f"unexpected {self.token} in {context}")
        self.advance()

    def control(self, keyword: Token) -> tuple[Any, ...]:
        """The rest of a statement that begins with a keyword."""
        word = keyword.text
        if word in ("break", "continue"):
            self.close(f"{{{{{word}}}}}")
            if not self.loops:
                self.fail(f"{{{{{word}}}}} outside {{{{range}}}}")
            return (word,)
        if word not in ("if", "with", "range"):
            self.fail(f"{{{{{word}}}}} is not supported in --format: write its parts out where they are used")
        known = len(self.variables)
        pipe = self.pipeline(word)
        self.close(word)
        self.loops += word == "range"
        body, closed = self.statements()
        self.loops -= word == "range"
        otherwise: list[Any] = []
        if closed == "else" and self.token.kind == "word":  # {{else if}}: one {{end}} closes both
            if word == "range" or self.token.text != word:
                self.fail(f"unexpected {self.token} in input")
            otherwise = [self.control(self.advance())]
        elif closed == "else":
            otherwise, closed = self.statements()
            if closed != "end":
                self.fail("expected end; found {{else}}")
        del self.variables[known:]
        return word, pipe, body, otherwise

    def pipeline(self, context: str) -> Node:
        """`$a, $b := command | command`, up to the `}}` or `)`, which stays."""
        at = self.skip_space().at
        names, how, first = self.declarations(context)
        commands: list[Node] = []
        while first is not None or not self.here("}}", ")"):
            commands.append(self.command(context, first))
            first = None
        if not commands:
            self.fail(f"missing value for {context}")
        for stage, each in enumerate(commands[1:], 2):
            if each.value[0].kind in ("constant", "nil", "dot"):
                self.fail(f"non executable command in pipeline stage {stage}")
        text = ", ".join(names) + f" {how} " if names else ""
        return Node("pipe", at, text + " | ".join(each.text for each in commands), (names, how, commands))

    def declarations(self, context: str) -> tuple[list[str], str, Node | None]:
        """The variables that a pipeline sets, and `:=` or `=`; or the operand that began like one."""
        names: list[str] = []
        while self.token.kind == "variable":
            variable = self.advance()
            is_apart = self.token.kind == "space"
            if not self.here(":=", "=", ","):
                if names:
                    self.fail("range can only initialize variables")
                return [], "", self.operand(variable, is_apart=is_apart)
            how = self.advance().text
            names.append(variable.text)
            self.variables.append(variable.text)
            if how != ",":
                return names, how, None
            if context != "range" or len(names) > 1:
                self.fail(f"too many declarations in {context}")
            if self.skip_space().kind != "variable":
                self.fail("range can only initialize variables")
        return names, "", None

    def command(self, context: str, first: Node | None) -> Node:
        """Operands up to a `|`, which is taken, or the end of the pipeline."""
        at = self.token.at if first is None else first.at
        operands = [] if first is None else [first]
        while not self.here("|", ")", "}}"):
            operands.append(self.operand(self.advance(), context="operand" if operands else context))
            if self.token.kind == "error":
                self.fail(self.token.text)
            if self.token.kind != "space" and not self.here("|", ")", "}}"):
                self.fail(f"unexpected {self.token} in operand")
        if not operands:
            self.fail(f"unexpected {self.token} in {context}")
        if self.here("|"):
            self.advance()
        return Node("command", at, " ".join(map(str, operands)), operands)

    def operand(self, token: Token, context: str = "operand", is_apart: bool = False) -> Node:
        """A term with the fields that are asked of it: `.A.B`, `$x.A`, `(index .A 0).B`. `is_apart`: a space was behind
        it already."""
        node = self.term(token, context)
        fields: list[str] = []
        at = self.token.at
        while not is_apart and self.token.kind == "field":
            fields.append(self.advance().text[1:])
        if not fields:
            return node
        text = str(node) + "".join(f".{each}" for each in fields)
        if node.kind in ("field", "variable"):
            return Node(node.kind, at, text, node.value + fields)
        if node.kind in ("constant", "nil", "dot"):
            self.fail(f'unexpected . after term {verbs.quoted(node.text)}')
        return Node("chain", at, text, (node, fields))

    def term(self, token: Token, context: str) -> Node:
        """A constant, a field, a variable, the name of a function, or a pipeline in parentheses."""
        at, text, kind = token.at, token.text, token.kind
        if kind == "field":
            return Node("field", at, text, [text[1:]])
        if kind == "variable":
            if text not in self.variables:
                self.fail(f"undefined variable {verbs.quoted(text)}")
            return Node("variable", at, text, [text])
        if kind == "string":
            return Node("constant", at, text, text[1:-1] if text[0] == "`" else self.unquoted(text[1:-1]))
        if kind == "number":
            return Node("constant", at, text, self.number(text))
        if kind == "word" and text not in KEYWORDS:
            if text in ("true", "false"):
                return Node("constant", at, text, text == "true")
            if text == "nil":
                return Node("nil", at, text)
            if text not in functions.TABLE:
                self.fail(f"function {verbs.quoted(text)} not defined")
            return Node("function", at, text, text)
        if kind == "char" and text == ".":
            return Node("dot", at, text)
        if kind == "char" and text == "(":
            pipe = self.pipeline("parenthesized pipeline")
            self.advance()  # the ")": the end of the action cannot come before it
            return pipe
        self.fail(f"unexpected {token} in {context}")

    def unquoted(self, text: str) -> str:
        """The inside of a string in double quotes, its escapes resolved."""
        parts = text.split("\\")
        result, rest = [parts[0]], parts[1:]
        while rest:
            part = rest.pop(0)
            letter = part[:1]
            size = {"x": 2, "u": 4, "U": 8}.get(letter, 0)
            if not part and rest:  # two of them are one
                result.append("\\" + rest.pop(0))
            elif letter and letter in 'abfnrtv"':
                result.append("\a\b\f\n\r\t\v\""['abfnrtv"'.index(letter)] + part[1:])
            else:
                start, base = (1, 16) if size else (0, 8)
                digits = part[start:start + (size or 3)]
                try:
                    if len(digits) != (size or 3) or not digits.isalnum():
                        raise ValueError
                    result.append(chr(int(digits, base)) + part[start + len(digits):])
                except (ValueError, OverflowError):
                    self.fail("invalid syntax")
        return "".join(result)

    def number(self, text: str) -> int | float:
        """`-5`, `0x1F`, `017`, `1_000`, `1.5e3`, `'a'`."""
        body = text[1:] if text[0] in "+-" else text
        try:
            if body[0] in "+-":
                raise ValueError
            if body[0] == "'":
                return ord(self.unquoted(body[1:-1].replace("\\'", "'")) or self.fail("invalid syntax"))
            if len(body) > 1 and body[0] == "0" and body.replace("_", "").isdigit():
                value: int | float = int(body, 8)
            elif any(letter in body for letter in ".eE") and not body.lower().startswith("0x"):
                value = float(body)
            else:
                value = int(body, 0)
            if isinstance(value, int) and value >= 1 << 63:
                self.fail(f"{text} overflows int")
            return -value if text[0] == "-" else value
        except (ValueError, TypeError, IndexError):
            is_torn = body.lower() in ("", ".", "0x", "0b", "0o")
            self.fail(f"{'illegal' if is_torn else 'bad'} number syntax: {verbs.quoted(text)}")
