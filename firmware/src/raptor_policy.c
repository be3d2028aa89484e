#include "raptor_policy.h"

#include "raptor_math.h"

enum { D = RAPTOR_OBSERVATION_DIM, H = RAPTOR_HIDDEN_DIM, A = RAPTOR_ACTION_DIM };

/* y (rows) = bias + x (inputs) times weight (inputs, rows): weights stand input by input, so that sums go by vectors. */
static void product(const float *weight, const float *bias, const float *x, float *y, int inputs, int rows)
{
    int i, k;
    for (i = 0; i < rows; i++) y[i] = bias[i];
    for (k = 0; k < inputs; k++, weight += rows)
        for (i = 0; i < rows; i++) y[i] += weight[i] * x[k];
}

static void rectify(float *x, int num)
{
    int i;
    for (i = 0; i < num; i++) x[i] = x[i] > 0.0f ? x[i] : 0.0f;
}

void raptor_reset(raptor_memory *memory)
{
    int i;
    memory->hidden[0] = 0.0f;
    for (i = 0; i < RAPTOR_MEMORY_DIM; i++) memory->hidden[i] = raptor_initial_hidden[i];
}

#if RAPTOR_MEMORY_DIM > 0

void raptor_step(raptor_memory *memory, const float observation[RAPTOR_OBSERVATION_DIM],
                 float action[RAPTOR_ACTION_DIM])
{
    float features[RAPTOR_HIDDEN_DIM], given[3 * RAPTOR_HIDDEN_DIM], recalled[3 * RAPTOR_HIDDEN_DIM];
    float *hidden = memory->hidden;
    int i;
    product(raptor_input_weight, raptor_input_bias, observation, features, D, H);
    rectify(features, H);
    product(raptor_gru_input_weight, raptor_gru_input_bias, features, given, H, 3 * H);
    product(raptor_gru_hidden_weight, raptor_gru_hidden_bias, hidden, recalled, H, 3 * H);
    for (i = 0; i < H; i++) {
        const float reset = raptor_sigmoid(given[i] + recalled[i]);
        const float update = raptor_sigmoid(given[H + i] + recalled[H + i]);
        const float candidate = raptor_tanh(given[2 * H + i] + reset * recalled[2 * H + i]);
        hidden[i] = candidate + update * (hidden[i] - candidate);
    }
    product(raptor_output_weight, raptor_output_bias, hidden, action, H, A);
}

#else

void raptor_step(raptor_memory *memory, const float observation[RAPTOR_OBSERVATION_DIM],
                 float action[RAPTOR_ACTION_DIM])
{
    float features[RAPTOR_HIDDEN_DIM], middle[RAPTOR_HIDDEN_DIM];
    (void)memory;
    product(raptor_input_weight, raptor_input_bias, observation, features, D, H);
    rectify(features, H);
    product(raptor_middle_weight, raptor_middle_bias, features, middle, H, H);
    rectify(middle, H);
    product(raptor_output_weight, raptor_output_bias, middle, action, H, A);
}

#endif

void raptor_motors(const float action[RAPTOR_ACTION_DIM], float motor[RAPTOR_ACTION_DIM])
{
    int i;
    for (i = 0; i < A; i++) motor[i] = 0.5f * (raptor_clip(action[i], -1.0f, 1.0f) + 1.0f);
}

float raptor_self_test(void)
{
    raptor_memory memory;
    float action[RAPTOR_ACTION_DIM], largest = 0.0f;
    int t, i;
    raptor_reset(&memory);
    for (t = 0; t < RAPTOR_EXAMPLE_STEPS; t++) {
        raptor_step(&memory, raptor_example_observation + t * D, action);
        for (i = 0; i < A; i++) {
            float error = action[i] - raptor_example_action[t * A + i];
            error = error < 0.0f ? -error : error;
            largest = error <= largest ? largest : error; /* also where it is not a number */
        }
    }
    return largest;
}
