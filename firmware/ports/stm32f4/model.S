@ The model that runs when no slot holds one, at the alignment that the engine asks for.
    .section .model, "a"
    .global model_start, model_end
    .balign 16
model_start:
#ifdef DRIP_MODEL_FILE
    .incbin DRIP_MODEL_FILE
#endif
model_end:
    .balign 16
