/* Fuzzing of every function that accepts bytes from outside. With libFuzzer: make fuzz-libfuzzer (needs clang).
 * Without: make fuzz ROUNDS=n, which mutates valid frames under GCC's sanitizers. */
#include "stetho_link.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static sl_decoder decoder; /* kept between inputs: any byte may follow any state */
    int16_t samples[64];
    sl_frame frame;
    uint8_t *copy;
    for (size_t i = 0u; i < size; i++) {
        const sl_decoded outcome = sl_decoder_push(&decoder, data[i], &frame);
        if (outcome == SL_GOT_FRAME) {
            sl_command command;
            (void)sl_parse_command(&frame, &command);
            (void)sl_adpcm_decode(frame.payload, frame.payload_size, samples, 64u);
        }
        if (decoder.held > sizeof decoder.buffer) {
            abort();
        }
    }
    (void)sl_adpcm_decode(data, size, samples, 64u);
    /* Parsers get the bytes as a payload too, without a CRC check; COBS round trip. */
    frame.version = SL_VERSION;
    frame.flags = 0u;
    frame.stream = 0u;
    frame.seq = 0u;
    frame.sample_index = 0u;
    frame.payload = data;
    frame.payload_size = size;
    for (unsigned type = 0x80u; type < 0x90u; type++) {
        sl_command command;
        frame.type = (uint8_t)type;
        (void)sl_parse_command(&frame, &command);
    }
    copy = malloc(SL_COBS_BOUND(size));
    if (copy != NULL) {
        const size_t packed = sl_cobs_encode(data, size, copy, SL_COBS_BOUND(size));
        if ((packed == 0u) || (sl_cobs_decode(copy, packed, copy, SL_COBS_BOUND(size)) != size) ||
            ((size > 0u) && (memcmp(copy, data, size) != 0))) {
            abort();
        }
        (void)sl_cobs_decode(data, size, copy, SL_COBS_BOUND(size));
        free(copy);
    }
    return 0;
}

#ifdef STANDALONE
static uint64_t random_state = 88172645463325252u;

static uint32_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 16);
}

int main(int argc, char **argv)
{
    static uint8_t payload[SL_MAX_PAYLOAD], wire[SL_WIRE_BOUND(SL_MAX_PAYLOAD)];
    const unsigned long rounds = (argc > 1) ? strtoul(argv[1], NULL, 10) : 20000u;
    unsigned long bytes = 0u;
    if (argc > 2) {
        random_state ^= strtoul(argv[2], NULL, 10) * 0x9E3779B97F4A7C15u;
    }
    for (unsigned long round = 0u; round < rounds; round++) {
        sl_frame frame = {SL_VERSION, 0u, 0u, 0u, 0u, 0u, payload, 0u};
        const uint32_t kind = next_random() % 4u;
        uint8_t *exact;
        size_t size;
        frame.type = (uint8_t)next_random();
        frame.payload_size = next_random() % ((kind == 0u) ? (SL_MAX_PAYLOAD + 1u) : 40u);
        for (size_t i = 0u; i < frame.payload_size; i++) {
            payload[i] = (uint8_t)((next_random() % 3u == 0u) ? 0u : next_random());
        }
        size = sl_frame_encode(&frame, wire, sizeof wire);
        for (uint32_t hits = (kind == 3u) ? 0u : (next_random() % 6u); hits > 0u; hits--) {
            wire[next_random() % size] = (uint8_t)next_random();
        }
        size -= (next_random() % 5u == 0u) ? (next_random() % size) : 0u;
        exact = malloc(size + 1u); /* on the heap, to the byte: ASan detects one read too many */
        if (exact == NULL) {
            return 1;
        }
        (void)memcpy(exact, wire, size);
        (void)LLVMFuzzerTestOneInput(exact, size);
        free(exact);
        bytes += size;
    }
    (void)printf("%lu inputs, %lu bytes, no fault\n", rounds, bytes);
    return 0;
}
#endif
