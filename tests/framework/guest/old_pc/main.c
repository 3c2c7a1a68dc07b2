/* The guest of an old PC: 32 bits, without an operating system, on an IDE disk of a few sectors.
 *
 * Small, because on emulated KVM each access to a port costs a tenth of a millisecond: the kernel
 * of the other guest would take minutes to come off an IDE disk. It says on the first serial line
 *
 *   MICA OLD PC cr0 80000011 efer 0     protected mode and paging, no long mode
 *   timer 3                             interrupts came out of a halted processor
 *   ide QEMU HARDDISK serial old sectors 2048
 *   ide read: TEXT                      of sector READ
 *   ide wrote: the text back            to sector READ + 1, turned around and flushed
 *   e1000 52:54:00:12:34:56             as its EEPROM and its receiver have it
 *   e1000 10.0.2.2 is at 52:55:0a:00:02:02   asked by ARP, answered
 *   MICA OLD PC DONE
 *
 * or what went wrong instead. Sources: ATA-4 (INCITS 317) for the disk, Intel's PCI/PCI-X GbE
 * Software Developer's Manual (317453) for the card.
 */
#include <stdint.h>

#define COM1 0x3f8
#define IDE 0x1f0
#define READ 64 /* the test knows it too */
#define RINGS 0x20000
#define BUFFERS 0x30000
#define RING_LENGTH 8
#define BUFFER_BYTES 2048
#define TICKS_PER_S 18

struct gate {
    uint16_t low, selector, type, high;
} __attribute__((packed));

struct descriptor {
    uint32_t address, address_high;
    uint16_t length;
    uint8_t offset, command; /* of a received one: its checksum */
    uint8_t status, other;
    uint16_t special;
};

struct arp {
    uint8_t to[6], from[6], type[2];
    uint8_t kinds[6], operation[2];
    uint8_t sender[6], sender_address[4], target[6], target_address[4];
    uint8_t padding[18];
} __attribute__((packed));

extern void on_timer(void);
volatile uint32_t ticks;
static struct gate gates[33];

static void outb(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static uint8_t inb(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static void outl(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static uint32_t inl(uint16_t port)
{
    uint32_t value;
    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

/* --- words ------------------------------------------------------------------------------- */

static void say(const char *text)
{
    for (; *text; text++) {
        while (!(inb(COM1 + 5) & 0x20))
            ;
        outb(COM1, *text);
    }
}

static void say_number(uint32_t number, uint32_t base, int digits)
{
    char text[12], *at = text + sizeof text - 1;
    *at = 0;
    do {
        *--at = "0123456789abcdef"[number % base];
        number /= base;
    } while (number || text + sizeof text - 1 - at < digits);
    say(at);
}

static void say_mac(const uint8_t *mac)
{
    for (int i = 0; i < 6; i++) {
        say(i ? ":" : "");
        say_number(mac[i], 16, 2);
    }
}

static int same(const uint8_t *one, const uint8_t *other, int length)
{
    while (length--)
        if (*one++ != *other++)
            return 0;
    return 1;
}

/* --- time -------------------------------------------------------------------------------- */

static void start_timer(void)
{
    uint32_t handler = (uint32_t)on_timer;
    struct {
        uint16_t limit;
        uint32_t base;
    } __attribute__((packed)) table = {sizeof gates - 1, (uint32_t)gates};
    gates[32] = (struct gate){handler & 0xffff, 8, 0x8e00, handler >> 16};
    static const uint8_t steps[] = {0x11, 32, 4, 1}; /* ICW1-4: interrupt 0 is vector 32 */
    outb(0x20, steps[0]);
    for (int i = 1; i < 4; i++)
        outb(0x21, steps[i]);
    outb(0x21, 0xfe);
    __asm__ volatile("lidt %0; sti" : : "m"(table));
}

/* True until `until` has come; the processor sleeps to the next tick. */
static int before(uint32_t until)
{
    if ((int32_t)(ticks - until) >= 0)
        return 0;
    __asm__ volatile("hlt");
    return 1;
}

/* --- the disk ---------------------------------------------------------------------------- */

static int disk_ready(uint8_t wanted)
{
    uint8_t status;
    for (uint32_t end = ticks + 10 * TICKS_PER_S;;) {
        status = inb(IDE + 7);
        if (status & 0x80 && before(end))
            continue;
        if ((status & 0xa1) == 0 && (status & wanted) == wanted)
            return 1;
        say("ide status ");
        say_number(status, 16, 2);
        say("\n");
        return 0;
    }
}

static void disk_command(uint8_t command, uint32_t sector)
{
    outb(IDE + 6, 0xe0 | (sector >> 24 & 15));
    outb(IDE + 2, 1);
    outb(IDE + 3, sector);
    outb(IDE + 4, sector >> 8);
    outb(IDE + 5, sector >> 16);
    outb(IDE + 7, command);
}

static int disk_in(uint8_t command, uint32_t sector, void *data)
{
    uint32_t words = 256;
    disk_command(command, sector);
    if (!disk_ready(8))
        return 0;
    __asm__ volatile("rep insw" : "+D"(data), "+c"(words) : "d"(IDE) : "memory");
    return 1;
}

static int disk_out(uint32_t sector, const void *data)
{
    uint32_t words = 256;
    disk_command(0x30, sector);
    if (!disk_ready(8))
        return 0;
    __asm__ volatile("rep outsw" : "+S"(data), "+c"(words) : "d"(IDE) : "memory");
    if (!disk_ready(0))
        return 0;
    disk_command(0xe7, 0);
    return disk_ready(0);
}

/* The texts of IDENTIFY have two octets a word, the second first, and blanks at their end. */
static void say_words(const uint8_t *data, int first, int count)
{
    char text[42];
    int end = 0;
    for (int i = 0; i < count * 2; i++) {
        text[i] = data[(first * 2 + i) ^ 1];
        if (text[i] != ' ')
            end = i + 1;
    }
    text[end] = 0;
    say(text);
}

static void use_disk(void)
{
    static uint8_t data[512], back[512];
    if (!disk_in(0xec, 0, data))
        return;
    say("ide ");
    say_words(data, 27, 20);
    say(" serial ");
    say_words(data, 10, 10);
    say(" sectors ");
    say_number(*(uint32_t *)(data + 120), 10, 1);
    say("\n");
    if (!disk_in(0x20, READ, data))
        return;
    data[511] = 0;
    say("ide read: ");
    say((char *)data);
    say("\n");
    int length = 0;
    while (data[length])
        length++;
    for (int i = 0; i < length; i++)
        back[i] = data[length - 1 - i];
    if (!disk_out(READ + 1, back))
        return;
    say("ide wrote: ");
    say((char *)back);
    say("\n");
}

/* --- the card ---------------------------------------------------------------------------- */

static uint32_t pci(uint32_t function, uint32_t offset)
{
    outl(0xcf8, 0x80000000 | function << 8 | offset);
    return inl(0xcfc);
}

static uint32_t find(uint32_t wanted)
{
    for (uint32_t device = 0; device < 4 * 32; device++)
        if (pci(device << 3, 0) == wanted)
            return device << 3;
    return 0;
}

static volatile uint32_t *card;

static volatile uint32_t *at(uint32_t offset)
{
    return card + offset / 4;
}

static void read_mac(uint8_t *mac)
{
    for (uint32_t word = 0; word < 3; word++) {
        *at(0x14) = word << 8 | 1;
        while (!(*at(0x14) & 0x10))
            ;
        mac[word * 2] = *at(0x14) >> 16;
        mac[word * 2 + 1] = *at(0x14) >> 24;
    }
}

static volatile struct descriptor *sent = (void *)RINGS;
static volatile struct descriptor *received = (void *)(RINGS + 0x1000);

static void start_card(void)
{
    for (uint32_t i = 0; i < RING_LENGTH; i++) {
        sent[i] = (struct descriptor){0};
        received[i] = (struct descriptor){.address = BUFFERS + (i + 1) * BUFFER_BYTES};
    }
    *at(0) |= 0x40;           /* CTRL: the link is up */
    *at(0x3800) = (uint32_t)sent;
    *at(0x3804) = 0;
    *at(0x3808) = RING_LENGTH * sizeof *sent;
    *at(0x3810) = *at(0x3818) = 0;
    *at(0x400) = 0x4010a;     /* TCTL: on, short packets padded */
    *at(0x2800) = (uint32_t)received;
    *at(0x2804) = 0;
    *at(0x2808) = RING_LENGTH * sizeof *received;
    *at(0x2810) = 0;
    *at(0x2818) = RING_LENGTH - 1;
    *at(0x100) = 0x4008002;   /* RCTL: on, broadcasts too, no checksum in memory */
}

static void send(const struct arp *question, uint32_t number)
{
    uint32_t place = number % RING_LENGTH;
    struct arp *packet = (void *)BUFFERS;
    *packet = *question;
    sent[place] = (struct descriptor){
        .address = BUFFERS, .length = sizeof *packet, .command = 0x0b};
    *at(0x3818) = (place + 1) % RING_LENGTH;
}

static const struct arp *receive(uint32_t *next)
{
    uint32_t place = *next % RING_LENGTH;
    if (!(received[place].status & 1))
        return 0;
    received[place].status = 0;
    *at(0x2818) = place;
    ++*next;
    return (const struct arp *)received[place].address;
}

static void use_card(void)
{
    static const uint8_t gateway[4] = {10, 0, 2, 2};
    struct arp question = {.to = {255, 255, 255, 255, 255, 255},
                           .type = {8, 6},
                           .kinds = {0, 1, 8, 0, 6, 4},
                           .operation = {0, 1},
                           .sender_address = {10, 0, 2, 77},
                           .target_address = {10, 0, 2, 2}};
    uint32_t function = find(0x100e8086), next = 0;
    if (!function) {
        say("e1000: there is none\n");
        return;
    }
    uint32_t command = pci(function, 4);
    outl(0xcfc, command | 6); /* memory, and being master */
    card = (void *)(pci(function, 0x10) & ~15u);
    read_mac(question.from);
    say("e1000 ");
    say_mac(question.from);
    uint32_t low = *at(0x5400), high = *at(0x5404);
    uint8_t receiver[6] = {low, low >> 8, low >> 16, low >> 24, high, high >> 8};
    say(same(receiver, question.from, 6) ? "\n" : ", and its receiver has another\n");
    for (int i = 0; i < 6; i++)
        question.sender[i] = question.from[i];
    start_card();
    for (uint32_t number = 0; number < 30; number++) {
        send(&question, number);
        for (uint32_t end = ticks + TICKS_PER_S; before(end);) {
            const struct arp *answer = receive(&next);
            if (!answer || answer->type[0] != 8 || answer->type[1] != 6 ||
                answer->operation[1] != 2 || !same(answer->sender_address, gateway, 4))
                continue;
            say("e1000 10.0.2.2 is at ");
            say_mac(answer->sender);
            say("\n");
            return;
        }
    }
    say("e1000: nobody answered\n");
}

void main(void)
{
    uint32_t cr0, efer, efer_high;
    __asm__ volatile("movl %%cr0, %0" : "=r"(cr0));
    __asm__ volatile("rdmsr" : "=a"(efer), "=d"(efer_high) : "c"(0xc0000080));
    say("MICA OLD PC cr0 ");
    say_number(cr0, 16, 8);
    say(" efer ");
    say_number(efer, 16, 1);
    say("\n");
    start_timer();
    while (before(3))
        ;
    say("timer ");
    say_number(ticks, 10, 1);
    say("\n");
    use_disk();
    use_card();
    say("MICA OLD PC DONE\n");
}
