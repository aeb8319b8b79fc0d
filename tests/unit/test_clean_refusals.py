"""The refusal detector on a labelled fixture of our own sentences."""

import pytest

from scripts.clean.refusals import refusal_in

REFUSALS = """
I'm sorry, but I can't help with that request.
I am sorry, but I cannot assist you with this.
I\u2019m sorry, but I can\u2019t continue this story.
I apologize, but I cannot fulfill that request.
I apologise, but I'm not able to write that scene.
My apologies, but I am unable to provide such material.
Unfortunately, I can't generate content of that kind.
Sorry, I can't write that for you.
I cannot fulfil this request.
I can't assist with that.
I can't help you with that.
I won't write that kind of content.
I will not participate in such a scene.
I'm not comfortable writing this.
I do not feel comfortable continuing this roleplay. Shall we try another topic?
I don't feel comfortable creating that content.
I must decline to continue this conversation.
I must respectfully decline your request.
I have to decline this request, since it could hurt someone.
As an AI language model, I cannot hold opinions on this matter.
As an AI, I don't have a body.
Well, as an AI assistant, I must remain neutral here.
As a large language model, I can only offer general words on this.
As an artificial intelligence, I am not able to visit places.
Thank you for asking. As an AI language model, I do not have feelings.
I'm just an AI and so I can't give you that.
I am an AI language model and I can't browse the web.
Writing this goes against my guidelines.
That would be against our content policy.
This request is against my programming.
My programming does not allow me to do so.
My guidelines prevent me from answering.
It is not appropriate to request such content.
It's not ethical to write stories about this.
I'm sorry, but it is not appropriate for me to continue.
I strive to be respectful and inclusive in all my replies.
I was designed to provide helpful and harmless answers.
*sighs* I apologize, but I cannot continue with this scene.
I really can't help you with this request.
I simply cannot provide instructions for that.
I'm afraid I must decline to write this.
Regrettably, I cannot engage in this kind of talk.
No, I won't help with such topics.
I cannot in good conscience write that material.
Hello! I'm sorry, but I can't discuss that topic.
""".strip().splitlines()

OTHERS = """
I'm sorry, but I can't go with you tonight, said the miller.
"I'm sorry, but I can't help you with that," the knight said.
\u201cI cannot assist you with this request,\u201d the robot answers in a flat voice.
You can't open the door. It is locked from the other side.
I can't believe you came all this way to see the lighthouse!
I cannot see anything in this fog.
I won't tell a soul, I promise.
I'm sorry I am late; the ferry waited for the tide.
I'm afraid the bakery is closed today.
Unfortunately, the passage does not say when the bridge was built.
Unfortunately, I lost the map when we crossed the river.
I must refuse the second helping, though the soup is lovely.
I have to go now; the bell is ringing.
As an AI researcher, she had seen many strange things.
As an aid to memory, write the list twice.
The AI in the story is called Orin, and it cannot help the crew.
It is important to note that water boils at 100 degrees at sea level.
It is not possible to divide by zero.
It's not appropriate weather for a picnic, he thinks.
The plan goes against everything the captain believes in.
The policy of the company is printed on the wall.
My training as a gardener began in spring.
My programming class starts at nine.
I can help with that. First, open the settings.
I can't help laughing when the cat falls off the sofa.
I can't really help you with this one, the sphinx hints, but look at the third door.
I won't support your claim to the throne, growls the duke, not while I live.
I will not write home before the harvest is in.
I don't feel comfortable in this coat.
I am unable to sleep before a journey.
I am just a humble farmer and I can't read these runes.
I'm not going back into that cave.
Sorry about the mess! Mira sweeps the crumbs from the table.
Apologies for the delay, traveller. The bridge is open again.
I apologize for the noise, she whispers.
She apologizes. Then she says that she can't assist the baker today.
The answer is 42. As asked, here is the working.
No, I can't swim, but I can row.
I aim to be there before noon.
I strive for perfect bread, and today I failed.
You ask the clerk. He says he cannot provide a room without a reservation.
I cannot recommend the fish.
Of course! Here is a poem about autumn.
The statement is false, because whales are mammals.
Sure, I'd be glad to write that letter for you.
The guard shakes his head and says that it is against the law to fish here.
I could not agree more, says the fox.
I should not have opened that box.
*laughs* I can't stop now, we are nearly at the top!
I'm sorry for your loss. The old oak was dear to us all.
It is unacceptable, the queen declares, that the gate stands open.
This is not ethical wool, mutters the weaver.
The model cannot fit in memory, so use a smaller batch.
I am programmed to sort parcels, the little machine says proudly.
I refuse to give up on this garden.
We decline the offer, with thanks.
Well, I can't promise you anything, but I will try.
I can't wait any longer, so I step into the hall.
You are a kind host. I cannot accept any payment.
That is outside the city walls, and the road is bad.
""".strip().splitlines()


def test_fixture_has_the_promised_quality() -> None:
    caught = [s for s in REFUSALS if refusal_in(s)]
    wrong = [s for s in OTHERS if refusal_in(s)]
    assert len(REFUSALS) >= 40 and len(OTHERS) >= 60
    precision, recall = len(caught) / (len(caught) + len(wrong)), len(caught) / len(REFUSALS)
    missed = [s for s in REFUSALS if s not in caught]
    assert precision >= 0.98, f"{precision:.3f}: {wrong}"
    assert recall >= 0.95, f"{recall:.3f}: {missed}"


@pytest.mark.parametrize("text", REFUSALS[:5])
def test_only_the_first_two_sentences_count(text: str) -> None:
    assert refusal_in(f"The rain stops. {text}")
    assert not refusal_in(f"The rain stops. The sun comes out. {text}")


def test_a_quoted_refusal_is_speech() -> None:
    assert not any(refusal_in(f'"{text}" says the guard.') for text in REFUSALS if text[0] == "I")
