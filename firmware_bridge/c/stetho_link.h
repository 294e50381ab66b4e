/* Stethoscope link protocol 1.0 (../PROTOCOL.md) for devices: frames, messages, commands, IMA-ADPCM.
 *
 * C99, no heap, no globals, no libc beyond string.h; re-entrant. All functions are bounded: encoders get the size of
 * their output and return 0 if it is too small, decoders accept any bytes.
 */
#ifndef STETHO_LINK_H
#define STETHO_LINK_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SL_MAJOR 1u
#define SL_MINOR 0u
#define SL_VERSION ((SL_MAJOR << 4) | SL_MINOR)
#define SL_MAX_PAYLOAD 2048u
#define SL_HEADER_BYTES 14u
#define SL_CRC_BYTES 4u

/* Upper limits of the encoded size, without delimiters and with both. */
#define SL_COBS_BOUND(n) ((n) + 1u + ((n) / 254u))
#define SL_WIRE_BOUND(payload) (SL_COBS_BOUND((payload) + SL_HEADER_BYTES + SL_CRC_BYTES) + 2u)

/* Longest payload that a decoder accepts. A device receives only commands: 32 is enough and saves 2 kB of RAM. */
#ifndef SL_DECODER_PAYLOAD
#define SL_DECODER_PAYLOAD SL_MAX_PAYLOAD
#endif

enum {
    SL_INFO = 0x01, SL_FORMAT = 0x02, SL_AUDIO = 0x03, SL_STATUS = 0x04, SL_EVENT = 0x05, SL_LOG = 0x06,
    SL_TIME = 0x07, SL_END = 0x08, SL_ACK = 0x09, SL_NACK = 0x0A,
    SL_HELLO = 0x81, SL_START = 0x82, SL_STOP = 0x83, SL_SET_GAIN = 0x84, SL_SET_FORMAT = 0x85, SL_GET_INFO = 0x86,
    SL_PING = 0x87, SL_TIME_REQUEST = 0x88
};
enum { SL_FLAG_CLIPPED = 1, SL_FLAG_DISCONTINUITY = 2, SL_FLAG_RETRY = 128 };
enum { SL_CODEC_S16 = 1, SL_CODEC_S24 = 2, SL_CODEC_ADPCM = 3 };
enum {
    SL_CAN_S16 = 1, SL_CAN_S24 = 2, SL_CAN_ADPCM = 4, SL_CAN_GAIN = 8, SL_CAN_BATTERY = 16, SL_CAN_CONTACT = 32,
    SL_CAN_TEMPERATURE = 64, SL_CAN_BUTTON = 128, SL_CAN_SET_FORMAT = 256
};
enum {
    SL_DONE = 0, SL_UNKNOWN_COMMAND = 1, SL_MALFORMED = 2, SL_NOT_SUPPORTED = 3, SL_NOT_NOW = 4, SL_WRONG_VERSION = 5
};
enum {
    SL_BUTTON_DOWN = 1, SL_BUTTON_UP = 2, SL_CONTACT_LOST = 3, SL_CONTACT_MADE = 4, SL_BATTERY_LOW = 5, SL_OVERRUN = 6
};
enum { SL_IDLE = 0, SL_STREAMING = 1, SL_ENDED = 2 };
enum { SL_SITE_UNCHANGED = 255, SL_SITES = 8, SL_UNKNOWN = 255, SL_UNKNOWN_TEMPERATURE = -32768 };

/* --- Frames ---------------------------------------------------------------------------------------------------- */

typedef struct {
    uint8_t version;
    uint8_t type;
    uint8_t flags;
    uint8_t stream;
    uint16_t seq;
    uint64_t sample_index;
    const uint8_t *payload; /* may be NULL where payload_size is 0 */
    size_t payload_size;
} sl_frame;

/* Writes delimiter, frame, delimiter; returns bytes written, 0 if the payload is too long or there is no room. */
size_t sl_frame_encode(const sl_frame *frame, uint8_t *wire, size_t room);

typedef enum { SL_MORE, SL_GOT_FRAME, SL_GOT_FAULT, SL_GOT_OTHER_VERSION } sl_decoded;

typedef struct {
    uint8_t buffer[SL_COBS_BOUND(SL_DECODER_PAYLOAD + SL_HEADER_BYTES + SL_CRC_BYTES)];
    size_t held;
    uint8_t oversize;
    uint8_t synchronised;
    uint32_t frames;
    uint32_t faults;
} sl_decoder;

void sl_decoder_init(sl_decoder *decoder);

/* Accepts one byte. With SL_GOT_FRAME, *frame is filled; its payload is valid until the next call. Bytes before the
 * first delimiter are skipped without a fault. */
sl_decoded sl_decoder_push(sl_decoder *decoder, uint8_t byte, sl_frame *frame);

/* The parts of the above, for tests and for other framings. Decode returns SL_COBS_FAULT for data that no encoder
 * writes; decoding in place (out == data) is allowed. */
#define SL_COBS_FAULT SIZE_MAX
size_t sl_cobs_encode(const uint8_t *data, size_t size, uint8_t *out, size_t room);
size_t sl_cobs_decode(const uint8_t *data, size_t size, uint8_t *out, size_t room);
uint32_t sl_crc32(const uint8_t *data, size_t size);

/* --- Messages to the host: each writes its payload and returns its size, 0 if there is no room -------------------- */

typedef struct {
    uint8_t proto_min, proto_max;
    uint8_t firmware[3];
    uint32_t capabilities;
    uint32_t boot_id;
    const char *serial; /* the first 16 bytes count */
    const char *model;
    uint8_t rate_count;
    const uint32_t *rates_hz;
} sl_info;

typedef struct {
    uint32_t clock_id;
    uint32_t rate_num, rate_den;
    uint8_t bits, channels, codec, site;
    int16_t gain_cdb;
    uint16_t block;
} sl_format;

typedef struct {
    uint64_t uptime_us;
    uint32_t dropped_blocks, overruns;
    uint16_t battery_mv;
    uint8_t battery_percent; /* SL_UNKNOWN */
    uint8_t contact;         /* 0, 1, SL_UNKNOWN */
    int16_t temperature;     /* 0.01 degrees C, SL_UNKNOWN_TEMPERATURE */
    uint8_t state;
} sl_status;

size_t sl_put_info(uint8_t *out, size_t room, const sl_info *info);
size_t sl_put_format(uint8_t *out, size_t room, const sl_format *format);
size_t sl_put_status(uint8_t *out, size_t room, const sl_status *status);
size_t sl_put_event(uint8_t *out, size_t room, uint8_t code, int32_t value);
size_t sl_put_log(uint8_t *out, size_t room, uint8_t level, const char *text);
size_t sl_put_time(uint8_t *out, size_t room, uint64_t t1, uint64_t t2_ns, uint64_t t3_ns);
size_t sl_put_end(uint8_t *out, size_t room, uint64_t total, uint8_t reason);
/* Payload of ACK and NACK: the frame's type is SL_ACK where code is SL_DONE, else SL_NACK. */
size_t sl_put_reply(uint8_t *out, size_t room, uint8_t command_type, uint8_t code, uint16_t command_seq);

/* --- Audio payloads ---------------------------------------------------------------------------------------------- */

typedef struct {
    int16_t predictor;
    uint8_t index;
} sl_adpcm;

size_t sl_put_audio_s16(uint8_t *out, size_t room, const int16_t *samples, uint16_t count);
/* The low 24 bits of each sample. */
size_t sl_put_audio_s24(uint8_t *out, size_t room, const int32_t *samples, uint16_t count);
/* Updates the state; start a stream with {0, 0}. */
size_t sl_put_audio_adpcm(uint8_t *out, size_t room, const int16_t *samples, uint16_t count, sl_adpcm *state);

/* Block header and codes of one ADPCM block; encode returns bytes written (0: no room), decode 1 or 0 (a bad block). */
size_t sl_adpcm_encode(sl_adpcm *state, const int16_t *samples, size_t count, uint8_t *out, size_t room);
int sl_adpcm_decode(const uint8_t *block, size_t size, int16_t *samples, size_t count);

/* I2S microphones (INMP441, ICS-43434, SPH0645) put 24 bits at the top of a 32-bit slot. Reading the slot as a signed
 * 32-bit sample, or the wrong half of it, gives quiet, noisy or mirrored audio. */
void sl_unpack_i2s_24in32(const uint32_t *slots, size_t count, int32_t *samples);
/* 24 bits to 16, rounded and saturated. */
int16_t sl_s24_to_s16(int32_t sample);

/* --- Commands from the host -------------------------------------------------------------------------------------- */

typedef struct {
    uint8_t type;
    uint8_t flags;
    uint16_t seq;
    uint8_t version_min, version_max; /* SL_HELLO */
    int16_t gain_cdb;                 /* SL_SET_GAIN */
    uint32_t rate_hz;                 /* SL_SET_FORMAT; 0: unchanged */
    uint8_t bits, codec, site;        /* SL_SET_FORMAT; 0, 0, SL_SITE_UNCHANGED: unchanged */
    uint64_t t1_ns;                   /* SL_TIME_REQUEST */
} sl_command;

/* SL_DONE and a filled command, or the code of the NACK to send; type and seq are filled in any case. */
uint8_t sl_parse_command(const sl_frame *frame, sl_command *command);

#ifdef __cplusplus
}
#endif

#endif
