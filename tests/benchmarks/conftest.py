"""An upstream and targets as real processes, started once for all tests of the folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.cases.rpc import Transcoder
from benchmarks.peers.target import Envoy, Naive
from benchmarks.process import Cores
from benchmarks.targets import Gateway, Served, Stand, Target
from benchmarks.upstream.handle import Upstream, upstream


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="session")
def source(folder: Path) -> Iterator[Upstream]:
    with upstream(Cores.of_machine().load, folder / "upstream.log") as running:
        yield running


@pytest.fixture(scope="session")
def stand(source: Upstream, folder: Path) -> Stand:
    return Stand(source.port, Cores.of_machine().target, folder)


@pytest.fixture(scope="session")
def gateway(stand: Stand) -> Iterator[Served]:
    with Gateway().serving(stand) as served:
        yield served


@pytest.fixture(scope="session")
def transcoder(stand: Stand, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Transcoder().serving(Stand(stand.upstream_port, stand.core, tmp_path_factory.mktemp("rpc"))) as served:
        yield served


@pytest.fixture(scope="session", params=[Naive(), Envoy()], ids=lambda target: target.name)
def peer(request: pytest.FixtureRequest, stand: Stand) -> Iterator[tuple[Target, Served]]:
    target = request.param
    if (reason := target.missing()) is not None:
        pytest.skip(reason)
    with target.serving(stand) as served:
        yield target, served
