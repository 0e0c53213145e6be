"""Run many long calculations one after the other, in the background, without losing any.

A *queue* is a file of JSON lines, one job a line, each with a unique ``id``. Results go to a
*journal*, also JSON lines, in the order of the queue. `pack` moves them from there into compressed
files of a fixed number of results. These files never change afterwards and can be committed.

- The journal contains each result completely or not at all. Incomplete lines are removed.
- Each job runs in a separate process. If that process crashes, the job has failed; if everything
  is killed, the job starts again in the next run.
- A job that failed is tried a second time, after all others.
- Stopping (``SIGSTOP``) and continuing the process group does no harm.

A program such as ``make_organic.py`` passes its function that calculates a job to `main`, which is
the command line.
"""

import argparse
import gzip
import json
import logging
import os
import resource
import signal
import sys
import threading
import time
import warnings
from collections import Counter
from multiprocessing import get_context
from pathlib import Path

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

BATCH = 100  # results per packed file
ATTEMPTS = 2
POLL = 0.5  # seconds
tqdm.monitor_interval = 0  # No other thread may run while a process is forked.

# Libraries read these variables when they are loaded: import this module before NumPy.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

log = logging.getLogger("harvest")


class Rejected(Exception):
    """The exception of a job that can never have a result; its message gives the reason."""


class OutOfTime(Exception):
    """The given number of minutes is over."""


class Journal:
    """Outcomes of jobs, one JSON line each; a line is written completely or not at all.

    Parameters
    ----------
    path : Path
        The file; its folder is created. Text after the last complete line is removed.
    """

    def __init__(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.file = open(path, "ab+")
        lock(self.file)
        self.file.seek(0)
        content = self.file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            log.warning("%s: cut off %d bytes of a torn line", path, len(content) - whole)
            self.file.truncate(whole)

    def append(self, entry):
        """Append one line, and wait until it is on the disk."""
        line = (json.dumps(entry, separators=(",", ":"), allow_nan=False) + "\n").encode()
        self.file.seek(0, os.SEEK_END)
        start = self.file.tell()
        try:
            self.file.write(line)
            self.file.flush()
            os.fsync(self.file.fileno())
        except OSError:
            self.file.truncate(start)
            raise

    def close(self):
        """Release the lock of the file."""
        self.file.close()


def lock(file):
    """Lock the file; raise an error if another run has locked it."""
    try:
        import fcntl
    except ImportError:  # Windows has no such module.
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise SystemExit(f"{file.name} is in use by another run.") from None


def read_lines(path):
    """Entries of a file of JSON lines, without an incomplete last line."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    return [json.loads(line) for line in whole.splitlines() if line.strip()]


def read_queue(path):
    """Jobs of a queue, in their order; raises an error if there are none, or if ids are equal."""
    jobs = read_lines(path)
    if not jobs:
        raise SystemExit(f"There are no jobs in {path}.")
    seen = Counter(job["id"] for job in jobs)
    twice = [name for name, count in seen.items() if count > 1]
    if twice:
        raise ValueError(f"{path}: the ids of jobs must differ, but these occur twice: {twice[:5]}")
    return jobs


def packed_files(folder, name):
    """Files of packed results, in order."""
    return sorted(folder.glob(f"{name}_[0-9][0-9][0-9].jsonl.gz"))


def read_packed(folder, name):
    """All packed results."""
    results = []
    for path in packed_files(folder, name):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            results += [json.loads(line) for line in file]
    return results


class State:
    """Outcomes of the jobs until now.

    Attributes
    ----------
    done : set of str
        Ids of jobs with a result.
    failures : dict of str to list of str
        Reasons, one per attempt.
    rejected : set of str
        Ids of jobs that are not tried again.
    """

    def __init__(self, entries, packed=(), dropped=()):
        self.done = {result["id"] for result in packed}
        self.failures, self.rejected = {}, set()
        for entry in entries:
            if "result" in entry:
                self.done.add(entry["id"])
            else:
                self.failures.setdefault(entry["id"], []).append(entry["failed"])
                if entry.get("final"):
                    self.rejected.add(entry["id"])
        for entry in dropped:  # the journal may have later failures of these jobs
            if len(entry["failed"]) > len(self.failures.get(entry["id"], [])):
                self.failures[entry["id"]] = entry["failed"]
            if entry["final"]:
                self.rejected.add(entry["id"])
        self.rejected |= {i for i, reasons in self.failures.items() if len(reasons) >= ATTEMPTS}
        self.rejected -= self.done

    def left(self, jobs):
        """Jobs to do: first the jobs without an attempt, then the jobs with one failure."""
        open_jobs = [j for j in jobs if j["id"] not in self.done and j["id"] not in self.rejected]
        return sorted(open_jobs, key=lambda job: job["id"] in self.failures)


def run(jobs, journal, calculate, state=None, minutes=None):
    """Calculate the jobs of a queue that have no result.

    Parameters
    ----------
    jobs : list of dict
        The queue.
    journal : Journal
        The journal to which outcomes are written.
    calculate : callable
        ``calculate(job, report)`` returns the result, a dict for JSON. ``report(text)`` shows
        progress. It raises `Rejected` if the job makes no sense, and any other exception if it
        failed.
    state : State, optional
        Outcomes so far; by default those in the journal.
    minutes : float, optional
        Stop after this time. The job that is then running starts again in the next run.

    Returns
    -------
    complete : bool
        Whether no job is left.
    """
    end = time.monotonic() + 60 * minutes if minutes is not None else None
    state = State(read_lines(journal.path)) if state is None else state
    todo = state.left(jobs)
    step = 0.1 if sys.stderr.isatty() else 60.0
    bar = tqdm(total=len(todo), unit="job", mininterval=step, maxinterval=max(step, 10))
    with logging_redirect_tqdm(), bar:
        while todo:
            job = todo.pop(0)
            bar.set_postfix_str(job["id"], refresh=False)
            started = time.monotonic()
            try:
                entry = attempt(job, calculate, end, bar)
            except OutOfTime:
                log.info("out of time; %s starts again in the next run", job["id"])
                return False
            entry["wall"] = round(time.monotonic() - started, 2)
            journal.append(entry)
            if "failed" in entry:
                reasons = state.failures.setdefault(job["id"], [])
                reasons.append(entry["failed"])
                again = not entry.get("final") and len(reasons) < ATTEMPTS
                log.warning("%s failed%s: %s", job["id"], ", once more later" * again, reasons[-1])
                if again:
                    todo.append(job)
                    continue
            bar.update()
    return True


def attempt(job, calculate, end, bar):
    """Run one job in a separate process, and return its entry for the journal."""
    if end is not None and time.monotonic() >= end:
        raise OutOfTime
    # Fork the process, because a new interpreter would import the quantum chemistry for every job.
    context = get_context("fork")
    answers, sender = context.Pipe(duplex=False)
    lifeline, keep = context.Pipe(duplex=False)
    child = context.Process(target=work, args=(job, calculate, sender, answers, lifeline, keep))
    with warnings.catch_warnings():
        # Python 3.12 and later warn about idle threads of linear algebra, which hold no lock.
        warnings.simplefilter("ignore", DeprecationWarning)
        child.start()
    sender.close()
    lifeline.close()
    shown = time.monotonic()
    try:
        while True:
            if answers.poll(POLL):
                try:
                    kind, content = answers.recv()
                except EOFError:  # the process ended without an answer
                    child.join()
                    return {"id": job["id"], "failed": f"process ended with {ending(child)}"}
                if kind == "entry":
                    return content
                bar.set_postfix_str(f"{job['id']}: {content}", refresh=False)
            if time.monotonic() - shown > bar.mininterval:
                bar.refresh()
                shown = time.monotonic()
            if end is not None and time.monotonic() >= end:
                raise OutOfTime
    finally:
        if child.is_alive() and sys.exc_info()[0] is not None:
            child.kill()
        child.join()
        answers.close()
        keep.close()


def ending(child):
    """Describe in words how a process ended."""
    if child.exitcode < 0:
        return signal.Signals(-child.exitcode).name
    return f"exit code {child.exitcode}"


def work(job, calculate, sender, answers, lifeline, keep):
    """Calculate a job in the forked process, and send the result."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    answers.close()
    keep.close()

    def end_with_parent():
        try:
            lifeline.recv()
        except EOFError:
            os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    try:
        result = {"id": job["id"], **calculate(job, lambda text: sender.send(("progress", text)))}
        entry = {"id": job["id"], "result": result}
        json.dumps(entry, allow_nan=False)
    except Rejected as reason:
        entry = {"id": job["id"], "failed": str(reason), "final": True}
    except Exception as error:
        entry = {"id": job["id"], "failed": f"{type(error).__name__}: {error}"[:300]}
    usage = resource.getrusage(resource.RUSAGE_SELF)
    entry["cpu"] = round(usage.ru_utime + usage.ru_stime, 2)
    sender.send(("entry", entry))
    sender.close()
    # Skip the exit handlers, which come from the parent and would remove its files.
    sys.stderr.flush()
    os._exit(0)


def pack(entries, folder, name, batch=BATCH, partial=False):
    """Write results that are not in packed files to new packed files.

    Parameters
    ----------
    entries : list of dict
        The journal.
    folder : Path
        Folder of the files ``<name>_000.jsonl.gz`` and so on.
    name : str
        Name of the data.
    batch : int
        Results per file. An incomplete batch stays in the journal.
    partial : bool
        Write the incomplete batch too, to a last file.

    Returns
    -------
    paths : list of Path
        New files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known = {result["id"] for result in read_packed(folder, name)}
    new = [e["result"] for e in entries if "result" in e and e["id"] not in known]
    number = len(packed_files(folder, name))
    paths = []
    while len(new) >= batch or (partial and new):
        path = folder / f"{name}_{number + len(paths):03d}.jsonl.gz"
        write_gzip(path, new[:batch])
        paths.append(path)
        new = new[batch:]
    state = present(entries, folder, name)
    if state.failures:
        lines = [
            json.dumps({"id": i, "failed": reasons, "final": i in state.rejected})
            for i, reasons in sorted(state.failures.items())
        ]
        replace(folder / f"{name}_failed.jsonl", "".join(f"{line}\n" for line in lines).encode())
    return paths


def write_gzip(path, results):
    """Write compressed JSON lines.

    The header has no name or time, so that equal results give equal files.
    """
    text = "".join(json.dumps(result, separators=(",", ":")) + "\n" for result in results)
    replace(path, gzip.compress(text.encode(), 9, mtime=0))


def replace(path, content):
    """Write a file completely or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    part.replace(path)


def status(jobs, state, entries, labels, now=None):
    """Return a text about the finished and the remaining jobs.

    Parameters
    ----------
    jobs : list of dict
        The queue.
    state : State
        Outcomes.
    entries : list of dict
        The journal, which has the times of the jobs.
    labels : dict of str to callable
        Each key is the title of a table. ``label(job)`` returns the names of the rows in which the
        job is counted.
    """
    left = {job["id"] for job in state.left(jobs)}
    ids = {job["id"] for job in jobs}
    cpu, n_timed = Counter(), Counter()
    seconds = {e["id"]: e["cpu"] for e in entries if "result" in e and e["id"] in ids}
    lines = [
        f"{len(ids & state.done)} of {len(jobs)} jobs done, {len(left)} left, "
        f"{len(ids & state.rejected)} dropped; "
        f"{sum(e['cpu'] for e in entries) / 3600:.2f} core-hours in this journal"
    ]
    size = next(iter(labels.values()))
    for job in jobs:
        if job["id"] in seconds:
            for row in size(job):
                cpu[row] += seconds[job["id"]]
                n_timed[row] += 1
    hours = 0.0
    for title, label in labels.items():
        rows = {}
        for job in jobs:
            for row in label(job):
                counts = rows.setdefault(row, Counter())
                counts["queue"] += 1
                for key, members in (
                    ("done", state.done),
                    ("dropped", state.rejected),
                    ("left", left),
                ):
                    counts[key] += job["id"] in members
        lines.append(f"\n{title:<16} {'queue':>6} {'done':>6} {'drop':>6} {'left':>6}")
        for row in sorted(rows):
            counts = rows[row]
            line = f"{row!s:<16} " + " ".join(
                f"{counts[key]:6d}" for key in ("queue", "done", "dropped", "left")
            )
            if label is size and n_timed[row]:
                each = cpu[row] / n_timed[row]
                hours += each * counts["left"] / 3600
                line += f"   {each:8.1f} s each, {each * counts['left'] / 3600:6.2f} h left"
            lines.append(line)
    lines.insert(1, f"{hours:.1f} core-hours left, without the sizes that were not timed yet")
    return "\n".join(lines)


def main(name, make_queue, calculate, labels, build, data, description, more=None, before=None):
    """Command line: ``queue``, ``run``, ``status``, ``pack`` and what ``more`` adds.

    Parameters
    ----------
    name : str
        Start of the names of all files.
    make_queue : callable
        Returns the jobs.
    calculate, labels
        See `run` and `status`.
    build, data : Path
        Two folders. `build` holds the journal; `data` holds the queue and the packed results.
    description : str
        Description of the command for ``--help``.
    more : dict of str to callable, optional
        Further commands, called with the parsed arguments.
    before : callable, optional
        Called once before the first job. It imports the modules that all processes share.
    """
    parser = argparse.ArgumentParser(description=description)
    more = more or {}
    commands = ["queue", "run", "status", "pack", *more]
    parser.add_argument("command", choices=commands)
    parser.add_argument("--minutes", type=float, help="run: stop after this time")
    parser.add_argument("--partial", action="store_true", help="pack: also an incomplete batch")
    parser.add_argument("--queue", type=Path, default=data / f"{name}_queue.jsonl")
    parser.add_argument("--journal", type=Path, default=build / f"{name}.jsonl")
    parser.add_argument("--data", type=Path, default=data, help="folder of the packed results")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    if arguments.command in more:
        return more[arguments.command](arguments)
    if arguments.command == "queue":
        jobs = make_queue()
        arguments.queue.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(job, separators=(",", ":")) + "\n" for job in jobs)
        replace(arguments.queue, text.encode())
        print(f"{len(jobs)} jobs in {arguments.queue}")
        return None
    entries = read_lines(arguments.journal)
    if arguments.command == "pack":
        for path in pack(entries, arguments.data, name, partial=arguments.partial):
            print(path)
        return None
    jobs = read_queue(arguments.queue)
    if arguments.command == "status":
        print(status(jobs, present(entries, arguments.data, name), entries, labels))
        return None
    journal = Journal(arguments.journal)
    pid = arguments.journal.with_suffix(".pid")
    pid.write_text(f"{os.getpid()}\n")
    try:
        if before is not None:
            before()
        state = present(read_lines(arguments.journal), arguments.data, name)
        complete = run(jobs, journal, calculate, state, arguments.minutes)
    finally:
        pid.unlink()
        journal.close()
    log.info("the queue is done" if complete else "there is more to do")
    return None


def present(entries, folder, name):
    """Outcomes in the journal, and in the packed files of earlier journals."""
    dropped = read_lines(folder / f"{name}_failed.jsonl")
    return State(entries, read_packed(folder, name), dropped)
