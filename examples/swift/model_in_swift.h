/* What Swift does not import by itself: arrays whose sizes it does not know. */
#include "steprnn.h"

/* The program of model.c; its third word has its bytes. */
static inline const uint32_t *program_of_model(void) {
    extern const uint32_t model_program[];
    return model_program;
}

/* The text of a token of model.c. */
static inline const char *word_of_model(uint32_t token) {
    extern const char *const model_vocabulary[];
    return model_vocabulary[token];
}
