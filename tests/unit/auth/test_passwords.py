"""Passwords: the rules, and hashing that can't be made to take the host's memory."""

from __future__ import annotations

import asyncio
import threading

import pytest

from vmkernel.auth.passwords import MIN_LENGTH, PasswordHasher, check_password
from vmkernel.model import ErrorCode, MicaError

GOOD = "seven grey herons at dusk"


@pytest.mark.parametrize(
    "password",
    [
        GOOD,
        "ünïcode passt hier auch",
        "9021 7743 1180 5562",
        "xK9#mP2$vL5@nQ8",
        "日本語の長い合言葉をここに書きます",
    ],
)
def test_length_is_what_counts(password: str) -> None:
    check_password(password, user="kim")


@pytest.mark.parametrize(
    ("password", "told"),
    [
        ("short", "at least 15"),
        ("x" * (MIN_LENGTH - 1), "at least 15"),
        ("y" * 300, "at most"),
        ("the herons of KIM at dusk", "user name"),
        ("aaaaaaaaaaaaaaaaaaaa", "repeats"),
        ("abcabcabcabcabcabc", "repeats"),
        ("dusk7!dusk7!dusk7!", "repeats"),
        ("abcdefghijklmnopqrs", "keyboard"),
        ("qwertyuiopasdfghjkl", "keyboard"),
        ("98765432109876543", "keyboard"),
        ("passwordpassword1", "repeats"),
        ("Password!Welcome-2026", "tried first"),
        ("P@ssw0rd L3tmein 99", "tried first"),
        ("correct horse battery staple", "tried first"),
        ("administrator 123456", "tried first"),
    ],
)
def test_what_is_guessed_first_is_refused_with_the_reason(password: str, told: str) -> None:
    with pytest.raises(MicaError) as caught:
        check_password(password, user="kim", pointer="/password")
    assert caught.value.problem.fields[0].pointer == "/password"
    assert told in caught.value.problem.detail
    assert password not in caught.value.problem.detail


def test_a_hash_proves_its_password_alone() -> None:
    async def main() -> None:
        hasher = PasswordHasher()
        kept = await hasher.hash(GOOD, origin="a")
        assert kept.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
        assert kept != await hasher.hash(GOOD, origin="a")
        assert await hasher.matches(kept, GOOD, origin="a")
        assert not await hasher.matches(kept, GOOD + "x", origin="a")
        assert not await hasher.matches(None, GOOD, origin="a")
        assert not await hasher.matches("no hash at all", GOOD, origin="a")
        assert not hasher.outdated(kept)
        assert hasher.outdated(kept.replace("t=2", "t=3"))

    asyncio.run(main())


def test_the_same_text_in_another_form_is_the_same_password() -> None:
    async def main() -> None:
        hasher = PasswordHasher()
        kept = await hasher.hash("caf\u00e9 au lait at dawn", origin="a")
        assert await hasher.matches(kept, "cafe\u0301 au lait at dawn", origin="a")

    asyncio.run(main())


def test_few_hash_at_once_and_one_origin_cannot_take_all_places() -> None:
    async def main() -> None:
        hasher = PasswordHasher()
        running, most = 0, 0
        lock = threading.Lock()
        slow = threading.Event()

        def hash_slowly(_: str) -> str:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            slow.wait(5)
            with lock:
                running -= 1
            return "x"

        hasher._hash = hash_slowly
        loud = [asyncio.create_task(hasher.hash("x", origin="loud")) for _ in range(100)]
        await asyncio.sleep(0.1)
        refused = [task for task in loud if task.done()]
        assert len(refused) == 96
        error = refused[0].exception()
        assert isinstance(error, MicaError)
        assert error.problem.code is ErrorCode.RATE_LIMITED
        assert error.problem.retry_after_s
        quiet = asyncio.create_task(hasher.hash("x", origin="quiet"))
        await asyncio.sleep(0)
        assert not quiet.done()
        slow.set()
        assert await quiet == "x"
        await asyncio.gather(*loud, return_exceptions=True)
        assert most == 2

    asyncio.run(main())
