"""Makes JAX lower and compile the many small programs of the tests in less time.

Programs are lowered several in a row in one MLIR context, as JAX does by itself since 0.11: earlier
ones make a context for each, which is a fifth of the time of a small one. And programs that are
equal, but for where they stand in the source, are compiled once: tests make networks and functions
anew, which JAX takes for others.
"""

import hashlib
from collections import OrderedDict

import jax
from jax._src import compiler
from jax._src.interpreters import mlir

PROGRAMS = 10  # in one context, which grows with each of them
KEPT = 1000  # compiled programs


class Contexts:
    """In place of the function of JAX's that makes one."""

    def __init__(self, make):
        self.make, self.last, self.used = make, None, PROGRAMS

    def __call__(self):
        if jax.config.jax_enable_compilation_cache:
            return self.make()  # what makes the key of a program in a cache cannot share
        if self.used == PROGRAMS:
            self.last, self.used = self.make(), 0
        self.used += 1
        return self.last


class Compiled:
    """In place of the function of JAX's that compiles."""

    def __init__(self, compile_program):
        self.compile, self.known = compile_program, OrderedDict()

    def __call__(self, backend, module, executable_devices, options, host_callbacks):
        given = backend, module, executable_devices, options, host_callbacks
        text = module.operation.get_asm(enable_debug_info=False)
        if host_callbacks or "callback" in text:  # which Python function it calls is not in it
            return self.compile(*given)
        program = hashlib.sha256(text.encode()).digest()
        key = program, str(executable_devices), options.SerializeAsString()
        if key not in self.known:
            self.known[key] = self.compile(*given)
        self.known.move_to_end(key)
        if len(self.known) > KEPT:
            self.known.popitem(last=False)
        return self.known[key]


def share_work():
    """Has to be called once, before anything is lowered."""
    if jax.__version_info__ < (0, 11):
        mlir.make_ir_context = Contexts(mlir.make_ir_context)
    compiler.backend_compile_and_load = Compiled(compiler.backend_compile_and_load)
