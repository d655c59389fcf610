"""Extractive question answering: questions read from files, cut into windows, and answered from a
model's logits.

1. `reading.read_questions`: a SQuAD file (1.1 or 2.0) or JSON lines in, `Question`s out.
2. `windows.make_windows`: questions and a fast `transformers` tokenizer in, `Windows` out. These
   are overlapping rows `[CLS] question [SEP] part of the context [SEP]`, with the token positions
   of the answer as labels.
3. `answers.best_answers`: the windows and the model's start and end logits in, one `Answer` per
   question out.

Answers are always characters of the context, found by the tokens' offsets; tokens are never
decoded. A word-start token of SentencePiece counts the white space before the word as its own, so
offsets are freed of white space first, and a token that is nothing but white space can neither
start nor end an answer.
"""

__all__ = ["answers", "learner", "predictor", "reading", "squad_scores", "windows"]
