/* The model in the image, executed in place from flash. CMakeLists.txt says which. */
    .section .rodata.drip_model, "a"
    .balign 16
    .global model_start
    .global model_end
model_start:
#ifdef DRIP_MODEL_FILE
    .incbin DRIP_MODEL_FILE
    .balign 16
#endif
model_end:
