"""Groups as somebody finds them after a while, for looking at their pages: in line, answered, shared."""

from sqlalchemy.orm import Session

from registry import ages, chats, checkpoints, grouplinks, runs, tickets
from registry.models import ChatGroup, User
from registry.models.base import FINISHED

PARAMS = {"max_tokens": 128, "temperature": 0.8, "top_p": 0.95, "repetition_penalty": 1.1, "logprobs": 5}
SAID = (" the the , , the the", " and the lord, and the world of", ", that is the matter: I will not stay")


def make(session: Session, user: User) -> dict[str, str]:
    """Columns and films of the run `demo`, by what there is to see: their addresses."""
    own = checkpoints.list_checkpoints(session, runs.get_run(session, "demo"), kind="pretrained")
    able = [one for one in own if one.precision == 16]
    found = {}
    side = answer(session, user, ages.open_side(session, user, able[:3], "To be, or not to be", PARAMS))
    ages.ask_again(session, side.chats[1:2])
    side = answer(session, user, side)
    ages.ask_all(session, side, "My lord, I", PARAMS)
    side = answer(session, user, side)
    found["columns"] = f"/chat/side/{side.public_id}"
    found["shared columns"] = f"/shared/ages/{grouplinks.share(side)}"
    film = answer(session, user, ages.open_film(session, user, able, "To be, or not to be", PARAMS))
    found["film"] = f"/chat/film/{film.public_id}"
    found["shared film"] = f"/shared/ages/{grouplinks.share(film)}"
    waiting = ages.open_side(session, user, able[-2:], "My lord, I", PARAMS)
    found["columns in line"] = f"/chat/side/{waiting.public_id}"
    half = answer(session, user, ages.open_film(session, user, able[:6], "My lord, I", PARAMS), 3)
    found["film in line"] = f"/chat/film/{half.public_id}"
    session.info.pop("deferred_jobs", None)
    return found


def answer(session: Session, user: User, group: ChatGroup, most: int = 1_000, text: str = "") -> ChatGroup:
    """As workers leave the first `most` columns behind, with that text; gives the group as its owner finds it."""
    for chat in _fresh(session, user, group).chats[:most]:
        for turn in chat.turns:
            if turn.status in chats.OPEN:
                said = text or SAID[min(chat.place // 2, len(SAID) - 1)]
                tokens = [[f"{word} ", -2.0 / (1 + chat.place), []] for word in said.split(" ")]
                tickets.cancel(session, turn_id=turn.id)
                chats.close_turn(
                    session,
                    turn.id,
                    status=FINISHED,
                    answer=said,
                    finish_reason="stop",
                    completion_tokens=len(tokens),
                    tokens=tokens if turn.params.get("logprobs") else None,
                )
    return _fresh(session, user, group)


def _fresh(session: Session, user: User, group: ChatGroup) -> ChatGroup:
    session.flush()
    public_id = group.public_id
    session.expire_all()
    return chats.get_group(session, user, public_id)
