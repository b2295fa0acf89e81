"""What a ticket asks to be written."""

from registry import chats, checkpoints, db
from registry.models.base import FINISHED
from tests.factories import make_user
from worker.engine.protocol import Sampling
from worker.engine.tokenizer import load_tokenizer
from worker.questions import Question, of_turn, prompt_tokens, read_sampling


class TestPromptTokens:
    def test_a_base_model_goes_on_from_the_text_alone(self, make_checkpoint):
        folder = make_checkpoint("base")
        messages = [
            {"role": "user", "content": "earlier"},
            {"role": "assistant", "content": "answer"},
            {"role": "user", "content": "To be"},
        ]
        token_ids = prompt_tokens(Question(folder, False, Sampling(), messages))
        assert load_tokenizer(folder).decode(token_ids) == "<|begin|>To be"

    def test_a_chat_model_gets_its_template_and_the_history(self, make_checkpoint):
        folder = make_checkpoint("chat", chat=True)
        messages = [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "ho"},
            {"role": "user", "content": "who?"},
        ]
        token_ids = prompt_tokens(Question(folder, True, Sampling(max_tokens=8), messages))
        assert load_tokenizer(folder).decode(token_ids) == "<|begin|>user: hi\nassistant: ho\nuser: who?\nassistant:"

    def test_history_that_does_not_fit_leaves_exchange_by_exchange(self, make_checkpoint):
        folder = make_checkpoint("chat", chat=True)
        messages = []
        for number in range(5):
            messages += [
                {"role": "user", "content": f"{number} " * 12},
                {"role": "assistant", "content": "word " * 8},
            ]
        messages.append({"role": "user", "content": "the last"})
        text = load_tokenizer(folder).decode(prompt_tokens(Question(folder, True, Sampling(max_tokens=16), messages)))
        assert text.startswith("<|begin|>user: ")
        assert text.endswith("user: the last\nassistant:")
        assert "0 0" not in text

    def test_a_system_prompt_stays_whatever_leaves(self, make_checkpoint):
        folder = make_checkpoint("chat", chat=True)
        messages = [{"role": "system", "content": "be brief"}]
        for number in range(5):
            messages += [{"role": "user", "content": f"{number} " * 12}, {"role": "assistant", "content": "word " * 8}]
        messages.append({"role": "user", "content": "the last"})
        text = load_tokenizer(folder).decode(prompt_tokens(Question(folder, True, Sampling(max_tokens=16), messages)))
        assert text.startswith("<|begin|>system: be brief\nuser: ")
        assert "0 0" not in text

    def test_tokens_that_were_given_are_not_made_again(self, make_checkpoint):
        assert prompt_tokens(Question(make_checkpoint("base"), False, Sampling(), token_ids=[5, 6])) == [5, 6]


def test_the_branch_of_a_turn_is_what_it_follows(publish, make_checkpoint):
    checkpoint_id = publish(make_checkpoint("base"))
    with db.transaction() as session:
        chat = chats.open_chat(session, make_user(session), checkpoints.get_by_id(session, checkpoint_id))
        first = answered(session, chats.open_turn(session, chat, "one"), "1")
        answered(session, chats.open_turn(session, chat, "two", after=first.id), "2")
        other = chats.open_turn(session, chat, "another way", {"system": "be brief"}, after=first.id)
        question = of_turn(chats.get_turn(session, other.id))
    assert [message["content"] for message in question.messages] == ["be brief", "one", "1", "another way"]


def answered(session, turn, text):
    chats.close_turn(session, turn.id, status=FINISHED, answer=text)
    session.flush()
    return turn


def test_sampling_has_openai_s_names_and_sensible_defaults():
    assert read_sampling({}).temperature > 0
    given = read_sampling({"max_tokens": 7, "temperature": 0, "top_p": 0.5, "seed": 3})
    assert given == Sampling(max_tokens=7, temperature=0.0, top_p=0.5, seed=3)
    told = read_sampling({"stop": "\n", "logprobs": 5})
    assert (told.stop, told.logprobs) == (("\n",), 5)
