"""How busy the fetching keeps a server that takes 50 ms for each of 2,000 small files.

    python benchmarks/fetch.py [--files 2000] [--concurrency 4] [--latency-ms 50] [--no-cache]

The server is a process of its own and counts how long it works at each file. Baseline: as many requests as
are allowed, each following the last without a gap, in the same run: files x service time / concurrency. The
ratio is the share of the allowed requests that are under way on average. Files go through the audio cache.
"""

import argparse
import asyncio
import multiprocessing
import random
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

from aiohttp import web

from etude.cli import guarded
from etude.sources.http import Downloader, HttpConfig

FILE_BYTES = 20_000


def serve(latency_s: float, pipe: Connection) -> None:
    """Serve every path with some bytes after a while; send the port, and at the end the mean service time."""
    data = random.Random(0).randbytes(FILE_BYTES)
    seconds: list[float] = []

    async def answer(request: web.Request) -> web.Response:
        started = time.perf_counter()
        await asyncio.sleep(latency_s)
        seconds.append(time.perf_counter() - started)
        return web.Response(body=data, content_type="audio/flac")

    async def main() -> None:
        app = web.Application()
        app.router.add_get("/{name}", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        pipe.send(runner.addresses[0][1])
        await asyncio.to_thread(pipe.recv)
        pipe.send(sum(seconds) / len(seconds))
        await runner.cleanup()

    asyncio.run(main())


async def fetch(url: str, config: HttpConfig, files: int, cache: Path) -> float:
    """Seconds for all files."""
    http = Downloader(config, {}, cache)
    started = time.perf_counter()
    await asyncio.gather(
        *(http.download(f"{url}/{i}", {}, key=str(i), n_bytes=FILE_BYTES) for i in range(files))
    )
    wall_s = time.perf_counter() - started
    await http.aclose()
    return wall_s


@guarded
def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=HttpConfig().concurrency)
    parser.add_argument("--latency-ms", type=float, default=50)
    parser.add_argument("--no-cache", action="store_true")
    arguments = parser.parse_args(argv)
    config = HttpConfig(concurrency=arguments.concurrency, cache_gb=0 if arguments.no_cache else 1)
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    server = context.Process(target=serve, args=(arguments.latency_ms / 1000, there), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{here.recv()}"
    with tempfile.TemporaryDirectory() as cache:
        wall_s = asyncio.run(fetch(url, config, arguments.files, Path(cache)))
    here.send("done")
    service_s = here.recv()
    server.join()
    ideal_s = arguments.files * service_s / arguments.concurrency
    print(f"service: {1000 * service_s:.1f} ms a file, measured by the server")
    print(f"ideal:   {ideal_s:.2f} s for {arguments.files} files, {arguments.concurrency} at a time")
    print(f"here:    {wall_s:.2f} s")
    print(f"busy:    {ideal_s / wall_s:.3f} of the limit")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
