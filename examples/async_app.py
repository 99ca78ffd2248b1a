"""An asyncio application: requests of many users at once, none of which waits for another's adaptation.

Run it after ``make demo``::

    python examples/async_app.py mrm-demo/bundle
"""

import asyncio
import sys

from mrm_sdk import AsyncClient, Comparison

ANSWERS = ["Yes. Do it today.", "It may depend on several things; perhaps check with a colleague first."]


async def request(client: AsyncClient, user: str, likes_bold: bool) -> None:
    chosen, rejected = ANSWERS if likes_bold else ANSWERS[::-1]
    await client.record(Comparison(user_id=user, prompt="Should I repot my fern?", chosen=chosen, rejected=rejected))
    best = (await client.rank(user, ANSWERS, prompt="Should I update my router?"))[0]
    print(f"{user} is shown: {best.response}")


async def main(bundle: str) -> None:
    async with AsyncClient("sqlite://", bundle=bundle) as client:
        await asyncio.gather(*(request(client, f"user-{n}", likes_bold=n % 2 == 0) for n in range(4)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "mrm-demo/bundle"))
