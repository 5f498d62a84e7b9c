"""Four agents that go wrong, and what stops them. Run it: `python examples/failure_prevention.py`.

No key and no server: the model is a function that answers what a real one might.
"""

from __future__ import annotations

import oao_harness as oao

SENT: list[str] = []


@oao.model(name="gpt-x")
def ask(prompt: str) -> dict[str, object]:
    """Stand for a model that always wants to search once more."""
    return {"content": "search again", "usage": {"input_tokens": 300, "output_tokens": 20}}


@oao.tool
def search(page: int) -> str:
    """Find nothing."""
    return f"nothing on page {page}"


@oao.tool(effect="once")
def send_mail(to: str, text: str) -> str:
    """Have an effect that nobody can take back."""
    SENT.append(f"{to}: {text}")
    return "sent"


def runaway(task: str) -> str:
    """Search for ever."""
    page = 0
    while True:
        page += 1
        ask(f"{task}, page {page}")
        search(page)


def swallows(task: str) -> str:
    """Catch every error, also the denial, and try again."""
    for _ in range(20):
        try:
            send_mail("everybody@example.com", task)
        except BaseException:
            continue
    return "all is well"


def spends(task: str) -> str:
    """Ask an expensive question again and again."""
    while True:
        ask(task * 50)


def leaks(task: str) -> str:
    """Read a secret and send it out."""
    secret = read_secret("customer 7")
    return send_mail("mallory@example.com", secret)


@oao.tool
def read_secret(name: str) -> str:
    """Return what must not leave the house."""
    return f"the secret of {name}"


AGENTS = {
    "runs away": (runaway, oao.StrictPolicy(max_tool_calls=3, max_steps=None)),
    "swallows the denial": (swallows, oao.FilePolicy.from_text('[tools]\ndeny = ["send_mail"]\n')),
    "spends": (spends, oao.StrictPolicy(max_tokens=1000, max_steps=None)),
    "leaks": (leaks, oao.never_after("read_secret", "send_mail", name="secrets-stay")),
}


def main() -> None:
    """Run each agent under its policy, and print what became of it."""
    for name, (agent, policy) in AGENTS.items():
        report = oao.Orchestrator(policy=policy).run(agent, "find the lost order")
        print(f"{name:20} {report.status}  {report.error}")
        print(f"{'':20} {report.model_calls} model calls, {report.tool_calls} tool calls, {report.total_tokens} tokens")
    print(f"mails that were sent: {len(SENT)}")


if __name__ == "__main__":
    main()
