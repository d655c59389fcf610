"""Token classification: a label for each word of a sentence, as for named entities or parts of
speech.

1. `reading.read_sentences`: a file of columns (CoNLL), JSON lines or plain text in, `Sentence`s
   out.
2. `tags.TagTask`: the labels of the task and the scheme they are written in (`schemes`).
3. `windows.make_windows`: sentences and a fast `transformers` tokenizer in, `Windows` out; the
   first piece of a word stands for the word.

A label that is inside an entity, but follows none of its kind, begins one: in files, in what the
model says, and in the pipeline of `transformers`. So all three count the same entities.
"""

__all__ = ["learner", "predictor", "reading", "schemes", "tags", "windows"]
