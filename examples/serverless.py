"""A handler of a serverless platform: one client for all invocations of a process, and nothing open between two.

It needs no folder that can be written but the temporary one, and may be frozen between invocations. Run it after
``make demo``::

    BUNDLE=mrm-demo/bundle python examples/serverless.py
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from mrm_sdk import Client, Comparison, ConflictError, DatabaseError, InvalidInputError, Settings

database = os.environ.get("DATABASE_URL")
client = Client(
    # The platform throws the temporary folder away with the process: in earnest it is a PostgreSQL, whose tables are
    # made at deployment (mrm db upgrade).
    database or f"sqlite:///{Path(tempfile.gettempdir()) / 'mrm.db'}",
    bundle=os.environ.get("BUNDLE", "mrm-demo/bundle"),
    settings=Settings.serverless() if database else Settings.serverless(auto_migrate=True),
)


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Takes feedback, where there is any, and ranks ``responses``."""
    try:
        if "feedback" in event:
            # With the caller's event_id, so that an invocation which the platform repeats counts once.
            client.record(Comparison(**{**event["feedback"], "user_id": event["user_id"]}))
        ranked = client.rank(event["user_id"], event["responses"], prompt=event["prompt"])
    except (InvalidInputError, ConflictError) as error:
        return {"statusCode": 400, "body": str(error)}
    except DatabaseError:
        return {"statusCode": 503, "body": "Try again."}
    return {"statusCode": 200, "body": json.dumps([row.response for row in ranked])}


if __name__ == "__main__":
    answers = ["Yes. Do it today.", "It may depend on several things; perhaps check with a colleague first."]
    question = {"user_id": "ada", "prompt": "Should I update my router?", "responses": answers}
    for number, chosen in enumerate(answers):
        feedback = {"event_id": f"e{number}", "chosen": chosen, "rejected": answers[1 - number]}
        print(handler({**question, "feedback": {**feedback, "prompt": "Should I repot my fern?"}}, None))
