"""Chapter 17: names for containers that were given none: a quality and somebody who made computing what it is."""

from __future__ import annotations

import os

QUALITIES = """
    able agile amber ample apt avid basic bold brave bright brisk calm candid careful cheerful clever cosy curious
    daring deft eager early earnest fair fearless fine fond frank fresh gentle glad golden good graceful handy happy
    hardy honest humble jolly keen kind lively loyal lucid merry mild modest neat nimble noble open patient placid
    plain polite prompt proud quick quiet ready robust serene sharp sincere smart snug solid spry steady stoic sturdy
    subtle sunny swift tidy tranquil trusty upbeat vivid warm wise witty zesty"""
PEOPLE = """
    aiken allen babbage backus baran bartik berners boole booth brooks cerf church clarke codd colossus conway cray
    dahl dijkstra easley eckert engelbart estrin feinler floyd forsythe goldberg goldstine hamilton hamming hoare
    holberton hollerith hopper iverson jacquard kahn kay keller kernighan kleene knuth lamarr lamport landin leibniz
    liskov lovelace mauchly mccarthy mcilroy meltzer minsky naur newell noether nygaard pascal perlis perlman postel
    rabin ritchie sammet shannon shirley simon sinclair snyder stallman stibitz strachey sutherland tarjan thompson
    torvalds turing vaughan wilkes wirth wing yao zuse"""


def invent() -> str:
    """A random name such as `steady_hopper`. It may be taken already."""
    dice = int.from_bytes(os.urandom(8), "little")
    qualities, people = QUALITIES.split(), PEOPLE.split()
    dice, which = divmod(dice, len(qualities))
    return f"{qualities[which]}_{people[dice % len(people)]}"
