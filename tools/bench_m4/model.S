/* The blob under test and its inputs, at the addresses that the program reads. */
    .section .model, "a"
    .global model_start, model_end, inputs_start, inputs_end
    .balign 16
model_start:
    .incbin MODEL_FILE
model_end:
    .balign 16
inputs_start:
    .incbin INPUTS_FILE
inputs_end:
