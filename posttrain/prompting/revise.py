"""Self-correction instructions: they say that there may be an error, never whether there is one (arXiv 2409.12917, App. A).

Those to verify ask for the model's own judgement, which is all that it may go by (arXiv 2506.10406).
"""

MATH = (
    "There might be an error in the solution above because of lack of understanding of the question. Please correct the error, if any, "
    "and rewrite the solution. Only output the final solution, ending with the final answer in \\boxed{}."
)
FEEDBACK = "Give feedback on the answer above: say what is right in it, what is wrong, and how to mend it. Do not write a new answer yet."
REFINE = "Use the feedback to write the answer again, in the same form as before."
VERIFY = (
    "Is the final answer above correct? Check how it was reached, without solving the problem anew in full. End with one word: right if "
    "the final answer is correct, wrong if it is not."
)
VERIFY_SUMS = "Right 1, wrong 0?"
SUMS = "There may be an error in the answer above. Correct it if there is one and write the answer again."
ONELINER = "# There may be an error in the code above. Correct it if there is one and write the function again."
CODE = (
    "# There might be an error in the code above because of lack of understanding of the question. Please correct the error, if any, and "
    "rewrite the solution. Only output the whole program, in one ```python block."
)
