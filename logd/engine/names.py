"""Which container is meant: the registry of ids and names, and names for containers that got none."""

import re
import secrets
from typing import Final

from logd.container import Container
from logd.errors import Conflict, InvalidParameter, NotFound

NAME: Final = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]+")
NAME_TRIES: Final = 6
"""How many generated names may be taken, from the second on with a number, before the id serves as the name."""
_ADJECTIVES: Final = (
    "able agile alert amber ample balmy blithe bold brave breezy bright brisk calm candid cheery clear clever cosy "
    "crisp curious daring deft dapper eager early earnest easy elegant exact fair fancy fleet fluent fond frank free "
    "fresh gentle glad golden grand happy hardy hearty honest humble jolly keen kind lively loyal lucid lucky mellow "
    "merry mild modest neat nimble noble open patient placid plucky polite proud prudent quick quiet rapid ready "
    "robust rosy serene sharp shiny silent sincere sleek smart smooth snug solid spry steady still sunny swift tender "
    "tidy tranquil true trusty upbeat valiant vivid warm wise witty zesty"
)
_SURNAMES: Final = (
    "abel agnesi archimedes babbage banach bernoulli bohr boole bose brahe cantor carson cauchy cavendish copernicus "
    "curie darwin dijkstra dirac einstein erdos euclid euler faraday fermat fermi feynman fibonacci fourier franklin "
    "galileo galois gauss germain godel goodall hamilton hamming heisenberg hertz hilbert hopper hubble huygens "
    "hypatia jacobi johnson joule kelvin kepler kovalevskaya lagrange lamarr laplace lavoisier leibniz lovelace "
    "maxwell meitner mendel mendeleev mitchell napier newton nightingale noether ohm pascal pasteur pauli peano "
    "planck poincare ptolemy pythagoras ramanujan riemann ritchie rutherford sagan shannon somerville "
    "tesla thompson torricelli turing volta wallace watt weyl wiles wirth wu yalow yonath"
)
ADJECTIVES: Final = _ADJECTIVES.split()
SURNAMES: Final = _SURNAMES.split()


def check_name(name: str) -> str:
    """Return a container's name without the slash; raises InvalidParameter in Docker's words."""
    if not NAME.fullmatch(name):
        raise InvalidParameter(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    return name.removeprefix("/")


def random_name(attempt: int) -> str:
    """Return a name such as `brave_noether`; later attempts end in a digit, so that they find a free one."""
    name = f"{secrets.choice(ADJECTIVES)}_{secrets.choice(SURNAMES)}"
    return f"{name}{secrets.randbelow(10)}" if attempt else name


class Registry:
    """All containers by id, and who holds which name. A name is held from before the container's folder exists."""

    def __init__(self) -> None:
        self._containers: dict[str, Container] = {}
        self._names: dict[str, str] = {}

    def new_id(self) -> str:
        """Return an unused id of 64 hexadecimal digits whose short form is no number (a host name must not be one)."""
        while True:
            container_id = secrets.token_hex(32)
            if container_id not in self._containers and not container_id[:12].isdigit():
                return container_id

    def reserve(self, name: str, container_id: str) -> None:
        """Give a checked name to a container; raises Conflict if another one has it."""
        holder = self._names.setdefault(name, container_id)
        if holder != container_id:
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{holder}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )

    def reserve_generated(self, container_id: str) -> str:
        """Give a container a name that is free and return it."""
        for attempt in range(NAME_TRIES):
            name = random_name(attempt)
            if name not in self._names:
                break
        else:
            name = container_id[:12]
        self.reserve(name, container_id)
        return name

    def release(self, name: str, container_id: str) -> None:
        """Free a name, if that container holds it."""
        if self._names.get(name) == container_id:
            del self._names[name]

    def add(self, container: Container) -> None:
        """Make a container visible."""
        self._containers[container.id] = container

    def discard(self, container: Container) -> None:
        """Make a container invisible and its name free."""
        self._containers.pop(container.id, None)
        self.release(container.name, container.id)

    def get(self, ref: str) -> Container:
        """Return the container with this id, name or unique beginning of an id.

        Raises NotFound, and InvalidParameter for an empty or ambiguous `ref`, in Docker's words.
        """
        if not ref:
            raise InvalidParameter('invalid name or ID supplied: ""')
        if found := self._containers.get(ref) or self._containers.get(self._names.get(ref.removeprefix("/"), "")):
            return found
        matching = [one for container_id, one in self._containers.items() if container_id.startswith(ref)]
        if len(matching) > 1:
            raise InvalidParameter(f"multiple IDs found with provided prefix: {ref}")
        if not matching:
            raise NotFound(f"No such container: {ref}")
        return matching[0]

    def find(self, container_id: str) -> Container | None:
        """Return the container with exactly this id."""
        return self._containers.get(container_id)

    def all(self) -> list[Container]:
        """Return all containers, oldest first."""
        return sorted(self._containers.values(), key=lambda one: one.created_ns)
