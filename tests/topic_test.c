// tests/topic_test.c: topics. What publishers and subscribers do and refuse; who comes late, is slow, or goes;
// processes that are killed at whatever step: what they have published arrives, and every chunk comes back.
#include "harness/chunks.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *const topic = "camera/left";

// ---------------------------------------------------------------------------------------------------------------------
// Publishers and subscribers of the test's topic

static zcp_publisher *publisher_with(zcp_manager *manager, zcp_publisher_desc desc) {
    zcp_publisher *publisher;
    if (!desc.topic)
        desc.topic = topic;
    CHECK_OK(zcp_publisher_open(manager, &desc, &publisher));
    return publisher;
}

static zcp_publisher *publisher_of(zcp_manager *manager, uint32_t depth) {
    return publisher_with(manager, (zcp_publisher_desc){.depth = depth});
}

static zcp_subscriber *subscriber_with(zcp_manager *manager, zcp_subscriber_desc desc) {
    zcp_subscriber *subscriber;
    if (!desc.topic)
        desc.topic = topic;
    CHECK_OK(zcp_subscriber_open(manager, &desc, &subscriber));
    return subscriber;
}

static zcp_subscriber *subscriber_of(zcp_manager *manager) {
    return subscriber_with(manager, (zcp_subscriber_desc){.topic = topic});
}

static zcp_subscriber *reliable_of(zcp_manager *manager) {
    return subscriber_with(manager, (zcp_subscriber_desc){.reliable = true});
}

// A chunk with the pattern of a seed, published.
static zcp_status try_publish(zcp_publisher *publisher, uint64_t seed, zcp_delivery *delivery) {
    zcp_chunk chunk;
    zcp_status status = zcp_publisher_loan(publisher, 64, &chunk);
    if (status != ZCP_OK)
        return status;
    pattern_write(&chunk, seed);
    status = zcp_publisher_publish(publisher, &chunk, delivery);
    CHECK_EQ(is_empty(&chunk), status == ZCP_OK);
    zcp_chunk_release(&chunk);
    return status;
}

static zcp_delivery publish(zcp_publisher *publisher, uint64_t seed) {
    zcp_delivery delivery;
    CHECK_OK(try_publish(publisher, seed, &delivery));
    return delivery;
}

static void check_payload(const zcp_message *message, uint64_t seed) {
    const uint64_t *words = message->data;
    CHECK(words != NULL);
    CHECK_EQ(message->size, 64);
    for (uint64_t i = 0; i < 8; i++)
        CHECK_EQ(words[i], pattern_word(seed, i));
}

// The next message, which has that number and the pattern of that seed.
static zcp_message receive(zcp_subscriber *subscriber, uint64_t number, uint64_t seed) {
    zcp_message message;
    CHECK_OK(zcp_subscriber_receive(subscriber, 0, &message));
    CHECK_EQ(message.number, number);
    check_payload(&message, seed);
    return message;
}

static void check_empty(zcp_subscriber *subscriber) {
    zcp_message message = {.size = 1};
    CHECK_STATUS(zcp_subscriber_receive(subscriber, 0, &message), ZCP_ERR_EMPTY);
    CHECK(message.data == NULL && message.size == 0 && message.number == 0);
}

typedef struct counted {
    uint32_t publishers, subscribers, ended;
    zcp_topic_entry last;
} counted;

static bool count_entry(const zcp_topic_entry *entry, void *user) {
    counted *count = user;
    count->publishers += entry->publisher;
    count->subscribers += !entry->publisher;
    count->ended += entry->ended;
    CHECK(entry->client < ZCP_MAX_CLIENTS || entry->client == ZCP_NO_CLIENT);
    CHECK(entry->keep <= entry->depth && entry->depth <= ZCP_MAX_RING_CELLS);
    if (entry->publisher)
        count->last = *entry;
    return true;
}

static counted count_topics(const zcp_manager *manager) {
    counted count = {0};
    CHECK_OK(zcp_manager_topics(manager, count_entry, &count));
    return count;
}

// Nobody publishes or subscribes any more, and no chunk is held.
static void finish_topics(zcp_manager *manager) {
    counted count = count_topics(manager);
    CHECK_EQ(count.publishers, 0);
    CHECK_EQ(count.subscribers, 0);
    CHECK_EQ(used(manager), 0);
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Publishing and receiving

TEST(topic_messages_come_in_order) {
    zcp_manager *manager = create(64, 20);
    zcp_publisher *publisher = publisher_of(manager, 4);
    zcp_subscriber *subscriber = subscriber_of(manager);
    check_empty(subscriber);
    uint64_t source = 0;
    for (uint64_t n = 1; n <= 1000; n++) {
        zcp_delivery delivery = publish(publisher, n);
        CHECK_EQ(delivery.number, n);
        CHECK_EQ(delivery.subscribers, 1);
        CHECK_EQ(delivery.overtaken, 0);
        zcp_message message = receive(subscriber, n, n);
        CHECK_EQ(message.lost, 0);
        CHECK_EQ(message.skipped, 0);
        CHECK_EQ(message.publisher, slot_of(manager));
        CHECK_EQ(message.tag, 0);
        CHECK(message.source != 0 && (n == 1 || message.source == source));
        source = message.source;
    }
    check_empty(subscriber);
    CHECK(used(manager) <= 4);
    zcp_subscriber_close(subscriber);
    zcp_publisher_close(publisher);
    finish_topics(manager);
}

TEST(topic_without_subscribers) {
    zcp_manager *manager = create(64, 8);
    zcp_publisher *publisher = publisher_of(manager, 4);
    for (uint64_t n = 1; n <= 100; n++) {
        zcp_delivery delivery = publish(publisher, n);
        CHECK_EQ(delivery.subscribers, 0);
        CHECK_EQ(delivery.overtaken, 0);
    }
    zcp_publisher_close(publisher);
    finish_topics(manager);
}

TEST(topic_several_subscribers_read_the_same_chunk) {
    zcp_manager *manager = create(64, 20), *other = attach();
    zcp_publisher *publisher = publisher_of(manager, 4);
    zcp_subscriber *readers[4];
    for (int r = 0; r < 4; r++)
        readers[r] = subscriber_of(r % 2 ? manager : other);
    for (uint64_t n = 1; n <= 50; n++) {
        CHECK_EQ(publish(publisher, n).subscribers, 4);
        for (int r = 0; r < 4; r++)
            (void)receive(readers[r], n, n);
    }
    for (int r = 0; r < 4; r++)
        zcp_subscriber_close(readers[r]);
    zcp_publisher_close(publisher);
    CHECK_EQ(used(manager), 0);
    zcp_manager_close(other);
    finish_topics(manager);
}

TEST(topic_slow_subscriber_is_overtaken) {
    zcp_manager *manager = create(64, 20);
    zcp_publisher *publisher = publisher_of(manager, 4);
    zcp_subscriber *subscriber = subscriber_of(manager);
    for (uint64_t n = 1; n <= 11; n++)
        CHECK_EQ(publish(publisher, n).overtaken, n > 4);
    CHECK_EQ(receive(subscriber, 8, 8).lost, 7);
    CHECK_EQ(receive(subscriber, 9, 9).lost, 0);
    CHECK_EQ(count_topics(manager).last.lost, 7);
    for (uint64_t n = 12; n <= 30; n++)
        (void)publish(publisher, n);
    CHECK_EQ(receive(subscriber, 27, 27).lost, 17);
    for (uint64_t n = 28; n <= 30; n++)
        CHECK_EQ(receive(subscriber, n, n).lost, 0);
    check_empty(subscriber);
    zcp_subscriber_close(subscriber);
    zcp_publisher_close(publisher);
    finish_topics(manager);
}

// What is read in place stays as it is, however far the publisher has gone on.
TEST(topic_message_in_hand_is_not_overwritten) {
    zcp_manager *manager = create(64, 8);
    zcp_publisher *publisher = publisher_of(manager, 2);
    zcp_subscriber *subscriber = subscriber_of(manager), *second = subscriber_of(manager);
    (void)publish(publisher, 1);
    zcp_message message = receive(subscriber, 1, 1), also = receive(second, 1, 1);
    for (uint64_t n = 2; n <= 100; n++) {
        (void)publish(publisher, n);
        check_payload(&message, 1);
    }
    zcp_subscriber_done(second);
    check_payload(&message, 1);
    CHECK(also.data == message.data);
    CHECK_EQ(used(manager), 3);
    CHECK_EQ(receive(subscriber, 99, 99).lost, 97);
    for (uint64_t n = 101; n <= 103; n++)
        (void)publish(publisher, n);
    zcp_subscriber_done(subscriber);
    zcp_subscriber_close(second);
    zcp_subscriber_close(subscriber);
    zcp_publisher_close(publisher);
    finish_topics(manager);
}

TEST(topic_reliable_subscriber_is_waited_for) {
    zcp_manager *manager = create(64, 20);
    zcp_publisher *publisher = publisher_of(manager, 3);
    zcp_subscriber *reliable = reliable_of(manager), *other = subscriber_of(manager);
    for (uint64_t n = 1; n <= 3; n++) {
        CHECK_EQ(count_topics(manager).last.waits_for, ZCP_NO_CLIENT);
        (void)publish(publisher, n);
    }
    CHECK_EQ(count_topics(manager).last.waits_for, slot_of(manager));
    zcp_delivery delivery;
    CHECK_STATUS(try_publish(publisher, 4, &delivery), ZCP_ERR_TIMEOUT);
    CHECK_EQ(delivery.number, 0);
    CHECK(strstr(zcp_last_message(), topic) != NULL);
    (void)receive(reliable, 1, 1);
    CHECK_STATUS(try_publish(publisher, 4, NULL), ZCP_ERR_TIMEOUT);
    (void)receive(reliable, 2, 2);
    CHECK_EQ(publish(publisher, 4).overtaken, 1);
    (void)receive(reliable, 3, 3);
    (void)receive(reliable, 4, 4);
    check_empty(reliable);
    CHECK_EQ(receive(other, 2, 2).lost, 1);
    zcp_subscriber_close(reliable);
    for (uint64_t n = 5; n <= 20; n++)
        (void)publish(publisher, n);
    zcp_subscriber_close(other);
    zcp_publisher_close(publisher);
    finish_topics(manager);
}

TEST(topic_publishers_come_and_go) {
    zcp_manager *manager = create(64, 40);
    zcp_subscriber *subscriber = subscriber_of(manager);
    uint64_t before = 0, read = 0;
    for (uint64_t life = 0; life < 40; life++) {
        zcp_publisher *publisher = publisher_of(manager, 4);
        (void)publish(publisher, life);
        (void)publish(publisher, life + 1000);
        zcp_publisher_close(publisher);
        for (; life % 3 == 0 && read <= life; read++) {                // up to three of them wait to be read
            zcp_message message = receive(subscriber, 1, read);
            CHECK(message.source > before);
            before = message.source;
            (void)receive(subscriber, 2, read + 1000);
        }
        if (life % 3 == 0)
            check_empty(subscriber);
    }
    check_empty(subscriber);
    zcp_subscriber_close(subscriber);
    finish_topics(manager);
}

// A publisher that has ended is read before its successor.
TEST(topic_successor_comes_after) {
    zcp_manager *manager = create(64, 40), *other = attach();
    zcp_subscriber *subscriber = subscriber_of(other);
    zcp_publisher *first = publisher_of(manager, 8);
    for (uint64_t n = 1; n <= 5; n++)
        (void)publish(first, n);
    zcp_publisher_close(first);
    zcp_publisher *second = publisher_of(manager, 8);
    for (uint64_t n = 1; n <= 5; n++)
        (void)publish(second, 100 + n);
    for (uint64_t n = 1; n <= 5; n++)
        (void)receive(subscriber, n, n);
    for (uint64_t n = 1; n <= 5; n++)
        (void)receive(subscriber, n, 100 + n);
    check_empty(subscriber);
    zcp_publisher_close(second);
    zcp_subscriber_close(subscriber);
    zcp_manager_close(other);
    finish_topics(manager);
}

TEST(topic_several_publishers) {
    zcp_manager *manager = create(64, 60);
    zcp_publisher *publishers[5];
    zcp_subscriber *subscriber = subscriber_of(manager);
    for (int p = 0; p < 5; p++)
        publishers[p] = publisher_of(manager, 8);
    uint64_t sources[5] = {0}, numbers[5] = {0};
    for (uint64_t n = 1; n <= 20; n++) {
        for (uint64_t p = 0; p < 5; p++)
            (void)publish(publishers[p], n);
        for (int k = 0; k < 5; k++) {
            zcp_message message;
            CHECK_OK(zcp_subscriber_receive(subscriber, 0, &message));
            check_payload(&message, n);
            int p = 0;
            while (p < 5 && sources[p] != 0 && sources[p] != message.source)
                p++;
            CHECK(p < 5);
            sources[p] = message.source;
            CHECK_EQ(message.number, ++numbers[p]);
        }
        check_empty(subscriber);
    }
    for (int p = 0; p < 5; p++)
        zcp_publisher_close(publishers[p]);
    zcp_subscriber_close(subscriber);
    finish_topics(manager);
}

TEST(topic_names_keep_apart) {
    zcp_manager *manager = create(64, 20);
    char longest[ZCP_MAX_TOPIC_BYTES];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    const char *names[] = {"a", "ab", "b", "a b", "\xc3\xa4/../.", longest};
    enum { NAMES = sizeof names / sizeof names[0] };
    zcp_publisher *publishers[NAMES];
    zcp_subscriber *subscribers[NAMES];
    for (int k = 0; k < NAMES; k++) {
        publishers[k] = publisher_with(manager, (zcp_publisher_desc){.topic = names[k], .depth = 2});
        subscribers[k] = subscriber_with(manager, (zcp_subscriber_desc){.topic = names[k]});
        CHECK_EQ(publish(publishers[k], (uint64_t)k).subscribers, 1);
        CHECK_STR(count_topics(manager).last.topic, names[k]);
    }
    for (int k = 0; k < NAMES; k++) {
        (void)receive(subscribers[k], 1, (uint64_t)k);
        check_empty(subscribers[k]);
        zcp_subscriber_close(subscribers[k]);
        zcp_publisher_close(publishers[k]);
    }
    finish_topics(manager);
}

TEST(topic_events) {
    zcp_manager *manager = create(64, 4);
    zcp_publisher *publisher = publisher_of(manager, 4);
    zcp_subscriber *subscriber = reliable_of(manager);
    zcp_delivery delivery;
    zcp_message message;
    zcp_chunk chunk = scribbled();
    for (uint64_t n = 1; n <= 4; n++) {
        CHECK_OK(zcp_publisher_notify(publisher, &delivery));
        CHECK_EQ(delivery.number, n);
    }
    CHECK_STATUS(zcp_publisher_notify(publisher, &delivery), ZCP_ERR_TIMEOUT);
    CHECK_EQ(used(manager), 0);
    for (uint64_t n = 1; n <= 4; n++) {
        CHECK_OK(zcp_subscriber_receive(subscriber, 0, &message));
        CHECK_EQ(message.number, n);
        CHECK(message.data == NULL && message.size == 0);
        CHECK_STATUS(zcp_subscriber_keep(subscriber, &chunk), ZCP_ERR_EMPTY);
        CHECK(is_empty(&chunk));
    }
    check_empty(subscriber);
    CHECK_OK(zcp_publisher_notify(publisher, NULL));
    (void)publish(publisher, 9);
    CHECK_OK(zcp_subscriber_receive(subscriber, 0, &message));
    CHECK(message.data == NULL);
    (void)receive(subscriber, 6, 9);
    zcp_subscriber_close(subscriber);
    zcp_publisher_close(publisher);
    finish_topics(manager);
}

TEST(topic_tag_and_size) {
    zcp_manager *manager = create(64, 8);
    zcp_publisher *publisher = publisher_of(manager, 4);
    zcp_subscriber *subscriber = subscriber_of(manager);
    zcp_message message;
    zcp_chunk chunk;
    CHECK_OK(zcp_chunk_allocate_tagged(manager, 13, 77, &chunk));
    CHECK_OK(zcp_publisher_publish(publisher, &chunk, NULL));
    CHECK_OK(zcp_subscriber_receive(subscriber, 0, &message));
    CHECK_EQ(message.size, 13);
    CHECK_EQ(message.tag, 77);
    chunk = allocate(manager, 60);
    CHECK_OK(zcp_chunk_set_size(&chunk, 7));
    CHECK_EQ(zcp_chunk_size(&chunk), 7);
    CHECK_STATUS(zcp_chunk_set_size(&chunk, 0), ZCP_ERR_INVALID_SIZE);
    CHECK_STATUS(zcp_chunk_set_size(&chunk, 65), ZCP_ERR_INVALID_SIZE);
    CHECK_STATUS(zcp_chunk_set_size(NULL, 1), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_EQ(zcp_chunk_size(&chunk), 7);
    zcp_chunk copy = chunk;
    CHECK_OK(zcp_publisher_publish(publisher, &chunk, NULL));
    CHECK_STATUS(zcp_chunk_set_size(&chunk, 7), ZCP_ERR_STALE);
    (void)copy;
    CHECK_OK(zcp_subscriber_receive(subscriber, 0, &message));
    CHECK_EQ(message.size, 7);
    CHECK_EQ(message.tag, 0);
    zcp_subscriber_close(subscriber);
    zcp_publisher_close(publisher);
    finish_topics(manager);
}

TEST(topic_keep_and_publish_again) {
    zcp_config config = one_pool(64, 20);
    zcp_manager *manager = create_named(test_instance(), &config, 0), *other = attach(), *third = attach();
    zcp_publisher *publisher = publisher_of(manager, 2), *again = publisher_with(other,
                                                                                 (zcp_publisher_desc){.topic = "again",
                                                                                                      .depth = 2});
    zcp_subscriber *subscriber = subscriber_of(other);
    zcp_subscriber *second = subscriber_with(third, (zcp_subscriber_desc){.topic = "again"});
    zcp_chunk kept[10], empty = scribbled();
    CHECK_STATUS(zcp_subscriber_keep(subscriber, &empty), ZCP_ERR_EMPTY);
    CHECK(is_empty(&empty));
    for (uint64_t n = 1; n <= 10; n++) {
        (void)publish(publisher, n);
        (void)receive(subscriber, n, n);
        CHECK_OK(zcp_subscriber_keep(subscriber, &kept[n - 1]));
        zcp_subscriber_done(subscriber);
        CHECK_STATUS(zcp_subscriber_keep(subscriber, &empty), ZCP_ERR_EMPTY);
    }
    zcp_publisher_close(publisher);
    for (uint64_t n = 1; n <= 10; n++)
        pattern_check(&kept[n - 1], n);
    CHECK_EQ(used(manager), 10);
    for (uint64_t n = 1; n <= 10; n++) {
        CHECK_OK(zcp_publisher_publish(again, &kept[n - 1], NULL));
        CHECK(is_empty(&kept[n - 1]));
        zcp_message message = receive(second, n, n);
        CHECK_EQ(message.publisher, slot_of(other));
    }
    zcp_publisher_close(again);
    zcp_subscriber_close(second);
    zcp_subscriber_close(subscriber);
    CHECK_EQ(used(manager), 0);
    zcp_manager_close(other);
    zcp_manager_close(third);
    finish_topics(manager);
}

// One chunk on two topics, and twice on one, by clones.
TEST(topic_one_chunk_on_several_topics) {
    zcp_manager *manager = create(64, 16), *other = attach();
    zcp_publisher *a = publisher_of(manager, 4), *b = publisher_with(manager, (zcp_publisher_desc){.topic = "b",
                                                                                                   .depth = 4});
    zcp_subscriber *on_a = subscriber_of(other), *on_b = subscriber_with(other, (zcp_subscriber_desc){.topic = "b"});
    zcp_chunk chunk = allocate(manager, 64);
    pattern_write(&chunk, 5);
    zcp_chunk second = zcp_chunk_clone(&chunk), third = zcp_chunk_clone(&chunk);
    CHECK_OK(zcp_publisher_publish(a, &chunk, NULL));
    CHECK_OK(zcp_publisher_publish(a, &second, NULL));
    CHECK_OK(zcp_publisher_publish(b, &third, NULL));
    CHECK_EQ(used(manager), 1);
    (void)receive(on_a, 1, 5);
    zcp_message message = receive(on_b, 1, 5);
    for (uint64_t n = 1; n <= 10; n++) {
        (void)publish(a, n);
        (void)publish(b, n);
        check_payload(&message, 5);
    }
    zcp_subscriber_close(on_a);
    zcp_publisher_close(a);
    check_payload(&message, 5);
    zcp_publisher_close(b);
    check_payload(&message, 5);
    CHECK(used(manager) >= 1);
    zcp_subscriber_close(on_b);
    CHECK_EQ(count_topics(manager).publishers, 0);
    CHECK_EQ(used(manager), 0);
    zcp_manager_close(other);
    finish_topics(manager);
}

static zcp_publisher *interjecting;
static void interject(void) { (void)publish(interjecting, 1); }

// What is published while a subscriber opens is not what comes after it: it begins behind, and loses nothing.
TEST(topic_published_while_a_subscriber_opens) {
    zcp_manager *manager = create(64, 40);
    interjecting = publisher_with(manager, (zcp_publisher_desc){.depth = 1});
    test_at_step("cursor_written", 1, TEST_CALL, interject);
    zcp_subscriber *reliable = subscriber_with(manager, (zcp_subscriber_desc){.reliable = true});
    test_steps_clear();
    check_empty(reliable);
    (void)publish(interjecting, 2);
    CHECK_EQ(receive(reliable, 2, 2).lost, 0);
    zcp_manager_close(manager);
    CHECK_OK(zcp_manager_destroy(test_instance()));
}

// One of the old messages was read: from then on the numbers add up, though the next ones are as old.
TEST(topic_history_that_is_overtaken_is_lost) {
    zcp_manager *manager = create(64, 40);
    zcp_publisher *publisher = publisher_with(manager, (zcp_publisher_desc){.depth = 4, .keep = 4});
    for (uint64_t n = 1; n <= 4; n++)
        (void)publish(publisher, n);
    zcp_subscriber *late = subscriber_with(manager, (zcp_subscriber_desc){.history = 3});
    CHECK_EQ(receive(late, 2, 2).lost, 0);
    for (uint64_t n = 5; n <= 8; n++)
        (void)publish(publisher, n);
    CHECK_EQ(receive(late, 5, 5).lost, 2);
    zcp_manager_close(manager);
    CHECK_OK(zcp_manager_destroy(test_instance()));
}

TEST(topic_history_and_keep) {
    zcp_manager *manager = create(64, 40);
    zcp_publisher *publisher = publisher_with(manager, (zcp_publisher_desc){.depth = 8, .keep = 3});
    zcp_subscriber *first = subscriber_of(manager);
    for (uint64_t n = 1; n <= 20; n++) {
        (void)publish(publisher, n);
        (void)receive(first, n, n);
    }
    zcp_subscriber *none = subscriber_of(manager);
    zcp_subscriber *two = subscriber_with(manager, (zcp_subscriber_desc){.history = 2});
    zcp_subscriber *all = subscriber_with(manager, (zcp_subscriber_desc){.history = UINT32_MAX, .reliable = true});
    check_empty(none);
    CHECK_EQ(receive(two, 19, 19).lost, 0);
    (void)receive(two, 20, 20);
    check_empty(two);
    zcp_message message;
    CHECK_OK(zcp_subscriber_receive(all, 0, &message));
    CHECK_EQ(message.lost, 0);
    CHECK(message.number <= 18 && message.number > 12);
    check_payload(&message, message.number);
    for (uint64_t n = message.number + 1; n <= 20; n++)
        (void)receive(all, n, n);
    (void)publish(publisher, 21);
    (void)receive(none, 21, 21);
    (void)receive(two, 21, 21);
    (void)receive(all, 21, 21);
    (void)receive(first, 21, 21);
    zcp_subscriber_close(first);
    zcp_subscriber_close(none);
    zcp_subscriber_close(two);
    zcp_subscriber_close(all);
    zcp_publisher_close(publisher);
    finish_topics(manager);
}

// All messages stay for later subscribers, so each displaces one, and nobody is overtaken by that.
TEST(topic_keep_as_deep_as_the_ring) {
    zcp_manager *manager = create(64, 10);
    zcp_publisher *publisher = publisher_with(manager, (zcp_publisher_desc){.depth = 3, .keep = 3});
    zcp_subscriber *reader = reliable_of(manager);
    for (uint64_t n = 1; n <= 30; n++) {
        CHECK_EQ(publish(publisher, n).overtaken, 0);
        (void)receive(reader, n, n);
    }
    zcp_subscriber *late = subscriber_with(manager, (zcp_subscriber_desc){.history = 100});
    for (uint64_t n = 28; n <= 30; n++)
        CHECK_EQ(receive(late, n, n).lost, 0);
    check_empty(late);
    zcp_subscriber_close(late);
    zcp_subscriber_close(reader);
    zcp_publisher_close(publisher);
    finish_topics(manager);
}

TEST(topic_latest) {
    zcp_manager *manager = create(64, 20);
    zcp_publisher *publisher = publisher_of(manager, 4);
    zcp_subscriber *latest = subscriber_with(manager, (zcp_subscriber_desc){.latest = true});
    for (uint64_t n = 1; n <= 3; n++)
        (void)publish(publisher, n);
    zcp_message message = receive(latest, 3, 3);
    CHECK_EQ(message.skipped, 2);
    CHECK_EQ(message.lost, 0);
    check_empty(latest);
    for (uint64_t n = 4; n <= 10; n++)
        (void)publish(publisher, n);
    message = receive(latest, 10, 10);
    CHECK_EQ(message.lost + message.skipped, 6);
    CHECK_EQ(message.skipped, 3);
    zcp_subscriber_close(latest);
    zcp_publisher_close(publisher);
    finish_topics(manager);
}

// Chunks that have been read come back when somebody needs one, although their ring is not full.
TEST(topic_read_chunks_come_back_before_exhausted) {
    zcp_manager *manager = create(64, 6);
    zcp_publisher *publisher = publisher_of(manager, 8);
    zcp_subscriber *subscriber = reliable_of(manager);
    zcp_chunk chunk;
    for (uint64_t n = 1; n <= 6; n++)
        (void)publish(publisher, n);
    CHECK_STATUS(zcp_chunk_allocate(manager, 64, &chunk), ZCP_ERR_EXHAUSTED);
    for (uint64_t n = 1; n <= 4; n++)
        (void)receive(subscriber, n, n);
    CHECK_EQ(used(manager), 6);
    zcp_chunk four[3];
    for (int k = 0; k < 3; k++)                                        // the fourth is in hand
        CHECK_OK(zcp_chunk_allocate(manager, 64, &four[k]));
    CHECK_STATUS(zcp_publisher_loan(publisher, 64, &chunk), ZCP_ERR_EXHAUSTED);
    zcp_subscriber_done(subscriber);
    CHECK_OK(zcp_publisher_loan(publisher, 64, &chunk));
    zcp_chunk_release(&chunk);
    for (int k = 0; k < 3; k++)
        zcp_chunk_release(&four[k]);
    (void)receive(subscriber, 5, 5);
    (void)receive(subscriber, 6, 6);
    zcp_subscriber_close(subscriber);
    zcp_publisher_close(publisher);
    finish_topics(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// What is refused

#define CHECK_NO_PUBLISHER(manager, status, ...)                                                                       \
    do {                                                                                                               \
        zcp_publisher *publisher_ = (zcp_publisher *)(uintptr_t)1;                                                     \
        CHECK_STATUS(zcp_publisher_open((manager), &(zcp_publisher_desc){__VA_ARGS__}, &publisher_), (status));        \
        CHECK(publisher_ == NULL);                                                                                     \
    } while (0)

#define CHECK_NO_SUBSCRIBER(manager, status, ...)                                                                      \
    do {                                                                                                               \
        zcp_subscriber *subscriber_ = (zcp_subscriber *)(uintptr_t)1;                                                  \
        CHECK_STATUS(zcp_subscriber_open((manager), &(zcp_subscriber_desc){__VA_ARGS__}, &subscriber_), (status));     \
        CHECK(subscriber_ == NULL);                                                                                    \
    } while (0)

TEST(topic_bad_names) {
    zcp_manager *manager = create(64, 8);
    char longest[ZCP_MAX_TOPIC_BYTES + 1], endless[5000];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    memset(endless, 'y', sizeof endless - 1);
    endless[sizeof endless - 1] = 0;
    const char *names[] = {"", longest, endless, "a\nb", "\x01", "tab\t", "del\x7f", "a\x1f"};
    CHECK_NO_PUBLISHER(manager, ZCP_ERR_INVALID_ARGUMENT, .topic = NULL);
    CHECK_NO_SUBSCRIBER(manager, ZCP_ERR_INVALID_ARGUMENT, .topic = NULL);
    for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
        CHECK_NO_PUBLISHER(manager, ZCP_ERR_INVALID_NAME, .topic = names[k]);
        CHECK_NO_SUBSCRIBER(manager, ZCP_ERR_INVALID_NAME, .topic = names[k]);
        CHECK(strchr(zcp_last_message(), '\n') == NULL);
    }
    CHECK_EQ(count_topics(manager).publishers, 0);
    finish_topics(manager);
}

TEST(topic_bad_arguments) {
    zcp_config config = one_pool(64, 8);
    config.ring_cells = 5;
    zcp_manager *manager = create_named(test_instance(), &config, 0);
    zcp_publisher *publisher;
    zcp_subscriber *subscriber;
    zcp_message message;
    zcp_chunk chunk = {0};
    uint32_t ready;
    zcp_publisher_desc publishes = {.topic = topic};
    zcp_subscriber_desc subscribes = {.topic = topic};
    CHECK_STATUS(zcp_publisher_open(NULL, &publishes, &publisher), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_publisher_open(manager, NULL, &publisher), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_publisher_open(manager, &publishes, NULL), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_subscriber_open(NULL, &subscribes, &subscriber), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_subscriber_open(manager, NULL, &subscriber), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_subscriber_open(manager, &subscribes, NULL), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_NO_PUBLISHER(manager, ZCP_ERR_INVALID_SIZE, .topic = topic, .depth = 6);
    CHECK_NO_PUBLISHER(manager, ZCP_ERR_INVALID_SIZE, .topic = topic, .depth = UINT32_MAX);
    CHECK_NO_PUBLISHER(manager, ZCP_ERR_INVALID_SIZE, .topic = topic, .depth = 4, .keep = 5);
    CHECK_NO_SUBSCRIBER(manager, ZCP_ERR_INVALID_ARGUMENT, .topic = topic, .reliable = true, .latest = true);
    publisher = publisher_of(manager, 0);                              // 8 are not to be had
    CHECK_EQ(count_topics(manager).last.depth, 5);
    subscriber = subscriber_of(manager);
    CHECK_STATUS(zcp_publisher_loan(NULL, 64, &chunk), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_publisher_loan(publisher, 64, NULL), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_publisher_loan(publisher, 0, &chunk), ZCP_ERR_INVALID_SIZE);
    CHECK_STATUS(zcp_publisher_loan(publisher, 65, &chunk), ZCP_ERR_TOO_LARGE);
    CHECK_STATUS(zcp_publisher_publish(publisher, NULL, NULL), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_publisher_publish(NULL, &chunk, NULL), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_publisher_notify(NULL, NULL), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_subscriber_receive(NULL, 0, &message), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_subscriber_receive(subscriber, 0, NULL), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_subscriber_keep(NULL, &chunk), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_subscriber_keep(subscriber, NULL), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_subscribers_wait(NULL, 1, 0, &ready), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_subscribers_wait(&subscriber, 0, 0, &ready), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_subscribers_wait(&subscriber, 1, 0, NULL), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_manager_interrupt(NULL, true), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_manager_topics(manager, NULL, NULL), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_manager_topics(NULL, count_entry, NULL), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_EQ(zcp_subscriber_descriptor(NULL), -1);
    zcp_subscriber_done(NULL);
    zcp_subscriber_done(subscriber);
    zcp_subscriber_close(NULL);
    zcp_publisher_close(NULL);
    zcp_subscriber_close(subscriber);
    zcp_publisher_close(publisher);
    finish_topics(manager);
}

TEST(topic_bad_chunks) {
    zcp_manager *manager = create(64, 8), *other = attach();
    zcp_publisher *publisher = publisher_of(manager, 2);
    zcp_subscriber *subscriber = subscriber_of(other);
    zcp_delivery delivery = {1, 1, 1};
    zcp_chunk chunk = {0}, foreign = allocate(other, 64), copy;
    CHECK_STATUS(zcp_publisher_publish(publisher, &chunk, &delivery), ZCP_ERR_STALE);
    CHECK(delivery.number == 0 && delivery.subscribers == 0);
    copy = foreign;
    CHECK_STATUS(zcp_publisher_publish(publisher, &foreign, NULL), ZCP_ERR_INVALID_ARGUMENT);
    CHECK(memcmp(&copy, &foreign, sizeof copy) == 0);
    zcp_chunk_release(&foreign);
    chunk = allocate(manager, 64);
    copy = chunk;
    zcp_chunk_release(&chunk);
    CHECK_STATUS(zcp_publisher_publish(publisher, &copy, NULL), ZCP_ERR_STALE);
    CHECK(copy.manager == manager);
    copy.index = UINT32_MAX;
    CHECK_STATUS(zcp_publisher_publish(publisher, &copy, NULL), ZCP_ERR_STALE);
    check_empty(subscriber);
    zcp_manager *closed = attach();
    chunk = allocate(closed, 64);
    zcp_manager_close(closed);
    CHECK_STATUS(zcp_publisher_publish(publisher, &chunk, NULL), ZCP_ERR_INVALID_ARGUMENT);
    zcp_publisher_close(publisher);
    chunk = allocate(manager, 64);
    CHECK_STATUS(zcp_publisher_publish(publisher, &chunk, NULL), ZCP_ERR_CLOSED);
    zcp_chunk_release(&chunk);
    zcp_subscriber_close(subscriber);
    zcp_manager_close(other);
    finish_topics(manager);
}

// The pool of what was published retires: it is read all the same, and goes then.
TEST(topic_chunk_of_a_retired_pool) {
    zcp_manager *manager = create(64, 8), *other = attach();
    zcp_publisher *publisher = publisher_of(manager, 4);
    zcp_subscriber *subscriber = reliable_of(other);
    uint32_t pool;
    CHECK_OK(zcp_manager_add_pool(manager, &(zcp_pool_config){.chunk_size = 256, .chunk_count = 4}, &pool));
    zcp_chunk chunk = allocate(manager, 200);
    memset(chunk.data, 7, 200);
    CHECK_OK(zcp_manager_retire_pool(manager, pool));
    CHECK_OK(zcp_publisher_publish(publisher, &chunk, NULL));
    zcp_message message;
    CHECK_OK(zcp_subscriber_receive(subscriber, 0, &message));         // which maps the pool
    CHECK_EQ(message.size, 200);
    CHECK_EQ(((const unsigned char *)message.data)[199], 7);
    CHECK_OK(zcp_subscriber_keep(subscriber, &chunk));
    zcp_publisher_close(publisher);
    zcp_subscriber_close(subscriber);
    zcp_chunk_release(&chunk);
    CHECK_EQ(count_topics(manager).publishers, 0);                     // a call about topics drains what was closed
    zcp_pool_stats stats;
    CHECK_OK(zcp_manager_pool_stats(manager, pool, &stats));
    CHECK_EQ(stats.state, ZCP_POOL_NONE);
    zcp_manager_close(other);
    finish_topics(manager);
}

TEST(topic_full_tables) {
    zcp_config config = one_pool(64, 8);
    config.publishers = 3;
    config.subscribers = 2;
    zcp_manager *manager = create_named(test_instance(), &config, 0);
    zcp_publisher *publishers[3];
    zcp_subscriber *subscribers[2];
    for (int round = 0; round < 3; round++) {
        for (int k = 0; k < 3; k++)
            publishers[k] = publisher_of(manager, 2);
        for (int k = 0; k < 2; k++)
            subscribers[k] = subscriber_of(manager);
        CHECK_NO_PUBLISHER(manager, ZCP_ERR_FULL, .topic = "other");
        CHECK(strstr(zcp_last_message(), "zcp_config.publishers") != NULL);
        CHECK_NO_SUBSCRIBER(manager, ZCP_ERR_FULL, .topic = "other");
        CHECK(strstr(zcp_last_message(), "zcp_config.subscribers") != NULL);
        for (int k = 0; k < 2; k++)
            zcp_subscriber_close(subscribers[k]);
        for (int k = 0; k < 3; k++)
            zcp_publisher_close(publishers[k]);
    }
    finish_topics(manager);
}

TEST(topic_exclusive) {
    zcp_manager *manager = create(64, 8);
    zcp_publisher *publisher = publisher_with(manager, (zcp_publisher_desc){.exclusive = true});
    CHECK(count_topics(manager).last.exclusive && !count_topics(manager).last.never_waits);
    CHECK_NO_PUBLISHER(manager, ZCP_ERR_EXISTS, .topic = topic);
    CHECK_NO_PUBLISHER(manager, ZCP_ERR_EXISTS, .topic = topic, .exclusive = true);
    zcp_publisher *elsewhere = publisher_with(manager, (zcp_publisher_desc){.topic = "elsewhere"});
    CHECK_NO_PUBLISHER(manager, ZCP_ERR_EXISTS, .topic = "elsewhere", .exclusive = true);
    zcp_subscriber *subscriber = subscriber_of(manager);
    (void)publish(publisher, 1);
    zcp_publisher_close(publisher);                                    // what it leaves unread keeps nobody out
    publisher = publisher_with(manager, (zcp_publisher_desc){.exclusive = true});
    (void)receive(subscriber, 1, 1);
    zcp_subscriber_close(subscriber);
    zcp_publisher_close(publisher);
    zcp_publisher_close(elsewhere);
    finish_topics(manager);
}

TEST(topic_never_waits) {
    zcp_manager *manager = create(64, 8);
    zcp_publisher *publisher = publisher_with(manager, (zcp_publisher_desc){.never_waits = true});
    CHECK(count_topics(manager).last.never_waits && !count_topics(manager).last.exclusive);
    CHECK_NO_SUBSCRIBER(manager, ZCP_ERR_INVALID_ARGUMENT, .topic = topic, .reliable = true);
    zcp_subscriber *subscriber = subscriber_of(manager);
    zcp_publisher_close(publisher);
    zcp_subscriber_close(subscriber);
    subscriber = reliable_of(manager);
    CHECK_NO_PUBLISHER(manager, ZCP_ERR_EXISTS, .topic = topic, .never_waits = true);
    zcp_subscriber_close(subscriber);
    finish_topics(manager);
}

TEST(topic_who_may_only_read) {
    zcp_manager *manager = create(64, 8);
    zcp_manager *reader = attach_named(test_instance(), ZCP_READ_ONLY_DATA), *observer = attach_named(test_instance(),
                                                                                                      ZCP_OBSERVE);
    CHECK_NO_PUBLISHER(reader, ZCP_ERR_READ_ONLY, .topic = topic);
    CHECK_NO_PUBLISHER(observer, ZCP_ERR_READ_ONLY, .topic = topic);
    CHECK_NO_SUBSCRIBER(observer, ZCP_ERR_READ_ONLY, .topic = topic);
    zcp_publisher *publisher = publisher_of(manager, 4);
    zcp_subscriber *subscriber = reliable_of(reader);
    (void)publish(publisher, 3);
    (void)receive(subscriber, 1, 3);
    zcp_chunk kept;
    CHECK_OK(zcp_subscriber_keep(subscriber, &kept));
    CHECK_STATUS(zcp_chunk_set_size(&kept, 1), ZCP_ERR_READ_ONLY);
    zcp_subscriber_done(subscriber);
    CHECK_EQ(count_topics(observer).subscribers, 1);
    counted count = count_topics(observer);
    CHECK_STR(count.last.topic, topic);
    CHECK_EQ(count.last.messages, 1);
    zcp_chunk_release(&kept);
    zcp_publisher_close(publisher);
    zcp_manager_close(reader);
    zcp_manager_close(observer);
    finish_topics(manager);
}

TEST(topic_config_mismatch) {
    zcp_config config = one_pool(64, 8), is;
    zcp_manager *manager = create_named(test_instance(), &config, 0), *other;
    CHECK_OK(zcp_manager_get_config(manager, &is));
    CHECK(is.publishers == ZCP_DEFAULT_PUBLISHERS && is.subscribers == ZCP_DEFAULT_SUBSCRIBERS
          && is.ring_cells == ZCP_DEFAULT_RING_CELLS);
    for (int k = 0; k < 4; k++) {
        zcp_config asked = config;
        asked.publishers = k == 0 ? 15 : k == 3 ? ZCP_DEFAULT_PUBLISHERS : 0;
        asked.subscribers = k == 1 ? 33 : 0;
        asked.ring_cells = k == 2 ? 65 : 0;
        CHECK_STATUS(zcp_manager_open(&other, &(zcp_manager_desc){.name = test_instance(), .config = &asked}),
                     k < 3 ? ZCP_ERR_CONFIG_MISMATCH : ZCP_OK);
        if (k == 3)
            zcp_manager_close(other);
    }
    zcp_config large = config;
    large.publishers = ZCP_MAX_PUBLISHERS + 1;
    CHECK_EQ(zcp_config_management_bytes(&large, 0), 0);
    CHECK_STATUS(zcp_manager_open(&other, &(zcp_manager_desc){.name = test_instance(), .config = &large}),
                 ZCP_ERR_INVALID_SIZE);
    large = config;
    large.ring_cells = 1000;
    CHECK(zcp_config_management_bytes(&large, 0) >= zcp_config_management_bytes(&config, 0) + 16 * 936 * 16);
    finish_topics(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Closed, and forked

static void check_all_refused(zcp_publisher *publisher, zcp_subscriber *subscriber, zcp_status expected) {
    zcp_message message;
    zcp_chunk chunk = scribbled();
    uint32_t ready;
    CHECK_STATUS(zcp_publisher_loan(publisher, 64, &chunk), expected);
    CHECK(is_empty(&chunk));
    CHECK_STATUS(zcp_publisher_publish(publisher, &chunk, NULL), expected);
    CHECK_STATUS(zcp_publisher_notify(publisher, NULL), expected);
    CHECK_STATUS(zcp_subscriber_receive(subscriber, UINT32_MAX, &message), expected);
    chunk = scribbled();
    CHECK_STATUS(zcp_subscriber_keep(subscriber, &chunk), expected);
    CHECK(is_empty(&chunk));
    CHECK_STATUS(zcp_subscribers_wait(&subscriber, 1, UINT32_MAX, &ready), expected);
    CHECK_EQ(zcp_subscriber_descriptor(subscriber), -1);
    zcp_subscriber_done(subscriber);
    zcp_subscriber_close(subscriber);
    zcp_publisher_close(publisher);
}

TEST(topic_closed) {
    zcp_manager *manager = create(64, 8), *other = attach();
    zcp_publisher *publisher = publisher_of(other, 4);
    zcp_subscriber *subscriber = subscriber_of(other), *reader = reliable_of(manager);
    (void)publish(publisher, 1);
    (void)receive(subscriber, 1, 1);
    zcp_publisher_close(publisher);
    zcp_subscriber_close(subscriber);
    check_all_refused(publisher, subscriber, ZCP_ERR_CLOSED);
    publisher = publisher_of(other, 4);
    subscriber = subscriber_of(other);
    CHECK(zcp_subscriber_descriptor(subscriber) >= 3);
    (void)publish(publisher, 2);
    (void)receive(subscriber, 1, 2);
    uint32_t slot = slot_of(other);
    zcp_manager_close(other);
    check_all_refused(publisher, subscriber, ZCP_ERR_CLOSED);
    zcp_client_info info;
    CHECK_OK(zcp_manager_client_info(manager, slot, &info));
    CHECK_EQ(info.state, ZCP_CLIENT_DEAD);                             // it drains: its messages are unread
    (void)receive(reader, 1, 1);
    (void)receive(reader, 1, 2);
    check_empty(reader);
    CHECK_OK(zcp_manager_client_info(manager, slot, &info));
    CHECK_EQ(info.state, ZCP_CLIENT_FREE);
    CHECK_EQ(count_topics(manager).publishers, 0);
    zcp_subscriber_close(reader);
    CHECK_EQ(used(manager), 0);
    other = attach();                                                  // uses the objects again
    publisher = publisher_of(other, 4);
    (void)publish(publisher, 3);
    zcp_manager_close(other);
    finish_topics(manager);
}

typedef struct inherited {
    zcp_publisher *publisher;
    zcp_subscriber *subscriber;
} inherited;

static void use_inherited(void *argument) {
    const inherited *objects = argument;
    check_all_refused(objects->publisher, objects->subscriber, ZCP_ERR_FORKED);
    zcp_manager *manager = attach();                                   // and it can work on its own
    zcp_publisher *publisher = publisher_of(manager, 4);
    (void)publish(publisher, 77);
    zcp_publisher_close(publisher);
    zcp_manager_close(manager);
}

TEST(topic_forked) {
    zcp_manager *manager = create(64, 8);
    inherited objects = {publisher_of(manager, 4), reliable_of(manager)};
    (void)publish(objects.publisher, 1);
    (void)receive(objects.subscriber, 1, 1);
    test_join(test_spawn(use_inherited, &objects));
    (void)receive(objects.subscriber, 1, 77);
    (void)publish(objects.publisher, 2);
    (void)receive(objects.subscriber, 2, 2);
    zcp_subscriber_close(objects.subscriber);
    zcp_publisher_close(objects.publisher);
    finish_topics(manager);
}

// Two threads of a process that open and close: whoever gets the other's entry is not closed with it.
typedef struct comer {
    zcp_manager *manager;
    const char *topic;
    _Atomic uint32_t *met;
    uint32_t rounds;
} comer;

static void *come_and_go(void *argument) {
    const comer *c = argument;
    test_meet(c->met, 2);
    for (uint32_t k = 0; k < c->rounds; k++) {
        zcp_publisher *publisher = publisher_with(c->manager, (zcp_publisher_desc){.topic = c->topic, .depth = 2});
        zcp_subscriber *subscriber = subscriber_with(c->manager, (zcp_subscriber_desc){.topic = c->topic});
        int descriptor = zcp_subscriber_descriptor(subscriber);
        CHECK(descriptor >= 3);
        (void)publish(publisher, k);
        (void)receive(subscriber, 1, k);
        CHECK(fcntl(descriptor, F_GETFD) >= 0);
        zcp_publisher_close(publisher);
        zcp_subscriber_close(subscriber);
    }
    return NULL;
}

TEST(topic_threads_come_and_go) {
    zcp_manager *manager = create(64, 40);
    _Atomic uint32_t *met = test_shared(sizeof *met);
    comer first = {manager, "first", met, ROUNDS(5000)}, second = {manager, "second", met, ROUNDS(5000)};
    pthread_t other = test_thread(come_and_go, &first);
    (void)come_and_go(&second);
    CHECK_EQ(pthread_join(other, NULL), 0);
    finish_topics(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Waiting

enum { PATIENCE = 30000 };

typedef struct told {
    _Atomic uint32_t ready, go_on, done;
    _Atomic uint64_t received;
    uint32_t slot, messages, depth, skew;
    bool reliable, keeps, descriptor;
} told;

static told *new_told(void) {
    return test_shared(sizeof(told));
}

static void receive_waiting(void *argument) {
    told *t = argument;
    zcp_manager *manager = attach();
    zcp_subscriber *subscriber = subscriber_with(manager, (zcp_subscriber_desc){.reliable = true});
    zcp_message message;
    test_signal(&t->ready);
    for (uint64_t n = 1; n <= t->messages; n++) {
        CHECK_OK(zcp_subscriber_receive(subscriber, PATIENCE, &message));
        CHECK_EQ(message.number, n);
        check_payload(&message, n);
        atomic_store(&t->received, n);
    }
    zcp_subscriber_close(subscriber);
    zcp_manager_close(manager);
}

// Both sides sleep: the publisher, because the ring is full, the subscriber, because it is empty.
TEST(topic_wait_on_both_sides) {
    zcp_manager *manager = create(64, 20);
    told *t = new_told();
    t->messages = ROUNDS(2000);
    pid_t child = test_spawn(receive_waiting, t);
    test_await(&t->ready, 1);
    zcp_publisher *publisher = publisher_with(manager, (zcp_publisher_desc){.depth = 2, .timeout_ms = PATIENCE});
    uint64_t began = test_now();
    for (uint64_t n = 1; n <= t->messages; n++) {
        (void)publish(publisher, n);
        if (n % 100 == 0)
            test_sleep(1);
    }
    test_join(child);
    // Who is not woken looks again after 100 ms: that would take far longer.
    CHECK_MSG(test_now() - began < UINT64_C(10000000000), "%llu ms",
              (unsigned long long)((test_now() - began) / 1000000));
    zcp_publisher_close(publisher);
    finish_topics(manager);
}

TEST(topic_wait_times_out) {
    zcp_manager *manager = create(64, 20);
    zcp_subscriber *subscriber = subscriber_of(manager), *other = reliable_of(manager);
    zcp_publisher *publisher = publisher_with(manager, (zcp_publisher_desc){.depth = 1, .timeout_ms = 30});
    zcp_message message;
    uint32_t ready = 9;
    uint64_t began = test_now();
    CHECK_STATUS(zcp_subscriber_receive(subscriber, 20, &message), ZCP_ERR_TIMEOUT);
    CHECK_STATUS(zcp_subscribers_wait((zcp_subscriber *[]){subscriber, other}, 2, 20, &ready), ZCP_ERR_TIMEOUT);
    CHECK_EQ(ready, 0);
    CHECK(test_now() - began >= 40000000);
    (void)publish(publisher, 1);
    began = test_now();
    CHECK_STATUS(try_publish(publisher, 2, NULL), ZCP_ERR_TIMEOUT);
    CHECK(test_now() - began >= 30000000);
    CHECK_OK(zcp_subscribers_wait((zcp_subscriber *[]){subscriber, other}, 2, 0, &ready));
    CHECK_EQ(ready, 0);
    (void)receive(subscriber, 1, 1);
    CHECK_OK(zcp_subscribers_wait((zcp_subscriber *[]){subscriber, other}, 2, UINT32_MAX, &ready));
    CHECK_EQ(ready, 1);
    (void)receive(other, 1, 1);
    CHECK_STATUS(zcp_subscribers_wait((zcp_subscriber *[]){subscriber, other}, 2, 0, &ready), ZCP_ERR_EMPTY);
    zcp_manager *second = attach();
    zcp_subscriber *foreign = subscriber_of(second);
    CHECK_STATUS(zcp_subscribers_wait((zcp_subscriber *[]){subscriber, foreign}, 2, 0, &ready),
                 ZCP_ERR_INVALID_ARGUMENT);
    zcp_manager_close(second);
    zcp_subscriber_close(subscriber);
    zcp_subscriber_close(other);
    zcp_publisher_close(publisher);
    finish_topics(manager);
}

static void *wait_for_message(void *subscriber) {
    zcp_message message;
    return (void *)(uintptr_t)zcp_subscriber_receive(subscriber, UINT32_MAX, &message);
}

static void *wait_for_chunk(void *manager) {
    zcp_chunk chunk;
    return (void *)(uintptr_t)zcp_chunk_allocate_wait(manager, 64, UINT32_MAX, &chunk);
}

static void *wait_for_room(void *publisher) {
    return (void *)(uintptr_t)zcp_publisher_notify(publisher, NULL);
}

static zcp_manager *to_interrupt;

static void interrupt_on_signal(int number) {
    (void)number;
    CHECK(zcp_manager_interrupt(to_interrupt, true) == ZCP_OK);
}

TEST(topic_interrupt) {
    zcp_manager *manager = create(64, 1);
    zcp_chunk chunk = allocate(manager, 64);
    zcp_subscriber *empty = subscriber_with(manager, (zcp_subscriber_desc){.topic = "empty"}),
        *late = reliable_of(manager);
    zcp_publisher *publisher = publisher_with(manager, (zcp_publisher_desc){.depth = 1, .timeout_ms = UINT32_MAX});
    CHECK_OK(zcp_publisher_notify(publisher, NULL));
    for (int round = 0; round < 3; round++) {
        pthread_t threads[] = {test_thread(wait_for_message, empty), test_thread(wait_for_chunk, manager),
                               test_thread(wait_for_room, publisher)};
        test_sleep(round == 1 ? 0 : 30);
        if (round < 2)
            CHECK_OK(zcp_manager_interrupt(manager, true));
        else {
            to_interrupt = manager;
            signal(SIGUSR1, interrupt_on_signal);
            raise(SIGUSR1);
        }
        for (int k = 0; k < 3; k++)
            CHECK_EQ((uintptr_t)test_thread_join(threads[k]), ZCP_ERR_INTERRUPTED);
        // Until it is taken back; but who need not wait goes on.
        zcp_message message;
        CHECK_STATUS(zcp_subscriber_receive(empty, 1000, &message), ZCP_ERR_INTERRUPTED);
        CHECK_STATUS(zcp_subscriber_receive(empty, 0, &message), ZCP_ERR_EMPTY);
        CHECK_OK(zcp_manager_interrupt(manager, false));
        CHECK_STATUS(zcp_subscriber_receive(empty, 1, &message), ZCP_ERR_TIMEOUT);
    }
    zcp_chunk_release(&chunk);
    zcp_subscriber_close(late);
    zcp_subscriber_close(empty);
    zcp_publisher_close(publisher);
    finish_topics(manager);
}

// A chunk that comes back because a subscriber has read it wakes who waits for one.
static void *receive_in_a_moment(void *subscriber) {
    zcp_message message;
    test_sleep(50);
    CHECK_OK(zcp_subscriber_receive(subscriber, 0, &message));
    zcp_subscriber_done(subscriber);
    return NULL;
}

TEST(topic_reading_wakes_who_waits_for_a_chunk) {
    zcp_manager *manager = create(64, 1), *other = attach();
    zcp_publisher *publisher = publisher_of(manager, 4);
    zcp_subscriber *subscriber = reliable_of(other);
    (void)publish(publisher, 1);
    pthread_t thread = test_thread(receive_in_a_moment, subscriber);
    zcp_chunk chunk;
    CHECK_OK(zcp_chunk_allocate_wait(manager, 64, PATIENCE, &chunk));
    test_thread_join(thread);
    zcp_chunk_release(&chunk);
    zcp_subscriber_close(subscriber);
    zcp_manager_close(other);
    zcp_publisher_close(publisher);
    finish_topics(manager);
}

static bool is_readable(int descriptor, int timeout_ms) {
    struct pollfd one = {descriptor, POLLIN, 0};
    return poll(&one, 1, timeout_ms) == 1 && (one.revents & POLLIN);
}

TEST(topic_descriptor) {
    zcp_manager *manager = create(64, 20), *other = attach();
    zcp_subscriber *subscriber = subscriber_of(manager);
    int descriptor = zcp_subscriber_descriptor(subscriber);
    CHECK(descriptor >= 3 && fcntl(descriptor, F_GETFD) == FD_CLOEXEC);
    CHECK_EQ(zcp_subscriber_descriptor(subscriber), descriptor);
    CHECK(is_readable(descriptor, 0) || is_readable(descriptor, 100));     // at first: look
    check_empty(subscriber);
    CHECK(!is_readable(descriptor, 0));
    zcp_publisher *publisher = publisher_of(other, 8);
    for (uint64_t n = 1; n <= 20; n++) {
        (void)publish(publisher, n);
        CHECK(is_readable(descriptor, 300));                           // before the timer
        (void)publish(publisher, n);
        CHECK(is_readable(descriptor, 0));
        (void)receive(subscriber, 2 * n - 1, n);
        CHECK(is_readable(descriptor, 0));
        (void)receive(subscriber, 2 * n, n);
        check_empty(subscriber);
        CHECK(!is_readable(descriptor, 0));
    }
    CHECK(is_readable(descriptor, 3000));                              // by the timer, for who could not tell
    check_empty(subscriber);
    CHECK(!is_readable(descriptor, 0));
    zcp_subscriber_close(subscriber);
    CHECK(fcntl(descriptor, F_GETFD) == -1 && errno == EBADF);
    zcp_publisher_close(publisher);
    zcp_manager_close(other);
    finish_topics(manager);
}

// A publisher appears just before the descriptor is armed; and when it is, the publisher's ring shows nothing.
static told *appears;
static pid_t appearing;

static void publish_and_stop(void *argument) {
    told *t = argument;
    zcp_manager *manager = attach();
    test_signal(&t->ready);
    test_await(&t->go_on, 1);
    zcp_publisher *publisher = publisher_of(manager, 1);
    (void)publish(publisher, 1);
    test_at_step("cells_gone", 1, TEST_STOP, NULL);
    (void)publish(publisher, 2);
    test_signal(&t->done);
    test_await(&t->go_on, 2);
    zcp_publisher_close(publisher);
    zcp_manager_close(manager);
}

static void let_it_appear(void) {
    test_signal(&appears->go_on);
    test_await_stop(appearing);
}

TEST(topic_descriptor_of_who_meets_a_publisher_while_arming) {
    zcp_manager *manager = create(64, 4);
    zcp_subscriber *subscriber = subscriber_of(manager);
    int descriptor = zcp_subscriber_descriptor(subscriber);
    CHECK(descriptor >= 0);
    appears = new_told();
    appearing = test_spawn(publish_and_stop, appears);
    test_await(&appears->ready, 1);
    test_at_step("found_nothing", 1, TEST_CALL, let_it_appear);
    check_empty(subscriber);
    test_steps_clear();
    test_resume(appearing);
    test_await(&appears->done, 1);
    CHECK_MSG(is_readable(descriptor, 0), "the publisher did not tell it");
    zcp_message message = receive(subscriber, 2, 2);
    CHECK_EQ(message.lost, 1);
    test_signal(&appears->go_on);
    test_join(appearing);
    zcp_subscriber_close(subscriber);
    finish_topics(manager);
}

// No descriptor is 0, 1 or 2, also where those are closed.
static void open_descriptors(void *argument) {
    (void)argument;
    zcp_manager *manager = attach();
    zcp_subscriber *subscriber = subscriber_of(manager);
    for (int low = 0; low < 3; low++)
        close(low);
    int descriptor = zcp_subscriber_descriptor(subscriber);
    bool right = descriptor >= 3;
    for (int low = 0; low < 3; low++)
        right = right && fcntl(low, F_GETFD) == -1;
    zcp_manager_close(manager);
    _exit(right ? 0 : 3);
}

TEST(topic_descriptor_is_no_standard_stream) {
    zcp_manager *manager = create(64, 4);
    test_join(test_spawn(open_descriptors, NULL));
    finish_topics(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Deaths

static void publish_and_wait(void *argument) {
    told *t = argument;
    zcp_manager *manager = attach();
    zcp_publisher *publisher = publisher_of(manager, t->depth);
    t->slot = slot_of(manager);
    for (uint64_t n = 1; n <= t->messages; n++)
        if (n == 2)
            CHECK_OK(zcp_publisher_notify(publisher, NULL));
        else
            (void)publish(publisher, n);
    test_signal(&t->ready);
    test_await(&t->go_on, 1);
}

// Of a publisher that was killed its messages arrive, of which the second is an event; then its slot is clean.
static void check_inheritance(zcp_subscriber *subscriber, uint64_t from, uint64_t messages) {
    zcp_message message;
    for (uint64_t n = from; n <= messages; n++) {
        CHECK_OK(zcp_subscriber_receive(subscriber, 0, &message));
        CHECK_EQ(message.number, n);
        if (n == 2)
            CHECK(message.data == NULL);
        else
            check_payload(&message, n);
    }
    check_empty(subscriber);
}

TEST(topic_death_of_a_publisher) {
    for (int reliable = 0; reliable < 2; reliable++) {
        zcp_manager *manager = create(64, 10);
        zcp_subscriber *subscriber = subscriber_with(manager, (zcp_subscriber_desc){.reliable = reliable});
        told *t = new_told();
        t->messages = 5, t->depth = 8;
        pid_t victim = test_spawn(publish_and_wait, t);
        test_await(&t->ready, 1);
        test_kill(victim);
        CHECK_RECOVERS(manager, 1, 0);
        CHECK_RECOVERS(manager, 0, 0);                                 // a draining client is told of once
        CHECK_EQ(used(manager), 4);
        CHECK_EQ(count_topics(manager).ended, 1);
        CHECK_EQ(count_topics(manager).last.unread, 5);
        CHECK_EQ(count_topics(manager).last.held, 4);
        check_inheritance(subscriber, 1, 5);
        CHECK_EQ(used(manager), 0);
        CHECK_EQ(count_topics(manager).publishers, 0);
        zcp_client_info info;
        CHECK_OK(zcp_manager_client_info(manager, t->slot, &info));
        CHECK_EQ(info.state, ZCP_CLIENT_FREE);
        zcp_subscriber_close(subscriber);
        finish_topics(manager);
    }
}

// What was read in place when its publisher died stays; and what was kept.
TEST(topic_death_of_a_publisher_whose_message_is_read) {
    zcp_manager *manager = create(64, 10);
    zcp_subscriber *subscriber = subscriber_of(manager), *other = subscriber_of(manager);
    told *t = new_told();
    t->messages = 3, t->depth = 2;
    pid_t victim = test_spawn(publish_and_wait, t);
    test_await(&t->ready, 1);
    test_kill(victim);
    zcp_message message;
    zcp_chunk kept;
    CHECK_OK(zcp_subscriber_receive(subscriber, 0, &message));
    CHECK_EQ(message.number, 2);
    message = receive(subscriber, 3, 3);
    zcp_subscriber_close(other);
    CHECK_RECOVERS(manager, 1, 0);
    check_payload(&message, 3);
    CHECK_OK(zcp_subscriber_keep(subscriber, &kept));
    zcp_subscriber_done(subscriber);
    check_empty(subscriber);
    CHECK_EQ(count_topics(manager).publishers, 0);
    CHECK_EQ(used(manager), 1);
    pattern_check(&kept, 3);
    zcp_chunk_release(&kept);
    zcp_subscriber_close(subscriber);
    finish_topics(manager);
}

static void read_and_wait(void *argument) {
    told *t = argument;
    zcp_manager *manager = attach();
    zcp_subscriber *subscriber = subscriber_with(manager, (zcp_subscriber_desc){.reliable = t->reliable});
    zcp_chunk kept;
    t->slot = slot_of(manager);
    test_signal(&t->ready);
    zcp_message message;
    CHECK_OK(zcp_subscriber_receive(subscriber, PATIENCE, &message));
    if (t->keeps)
        CHECK_OK(zcp_subscriber_keep(subscriber, &kept));
    test_signal(&t->done);
    test_await(&t->go_on, 1);
}

// A dead reliable subscriber holds nobody up, also where the publisher does not wait.
TEST(topic_death_of_a_subscriber) {
    for (int waits = 0; waits < 2; waits++) {
        zcp_manager *manager = create(64, 10);
        told *t = new_told();
        t->reliable = true, t->keeps = waits;
        pid_t victim = test_spawn(read_and_wait, t);
        test_await(&t->ready, 1);
        zcp_publisher *publisher = publisher_with(manager, (zcp_publisher_desc){.depth = 2, .timeout_ms = waits
                                                                                ? PATIENCE : 0});
        (void)publish(publisher, 1);
        test_await(&t->done, 1);
        (void)publish(publisher, 2);
        if (!waits)
            CHECK_STATUS(try_publish(publisher, 3, NULL), ZCP_ERR_TIMEOUT);
        test_kill(victim);
        test_sleep(waits ? 0 : 50);                                    // it is tested now and then
        for (uint64_t n = 3; n <= 20; n++)
            (void)publish(publisher, n);
        CHECK_EQ(count_topics(manager).subscribers, 0);
        zcp_publisher_close(publisher);
        finish_topics(manager);
    }
}

// Who waits is woken, or looks: the subscriber's death ends a wait of the publisher.
static void *kill_in_a_moment(void *argument) {
    test_sleep(50);
    test_kill(*(pid_t *)argument);
    return NULL;
}

TEST(topic_death_of_a_subscriber_that_is_waited_for) {
    zcp_manager *manager = create(64, 10);
    told *t = new_told();
    t->reliable = true;
    pid_t victim = test_spawn(read_and_wait, t);
    test_await(&t->ready, 1);
    zcp_publisher *publisher = publisher_with(manager, (zcp_publisher_desc){.depth = 1, .timeout_ms = UINT32_MAX});
    (void)publish(publisher, 1);
    test_await(&t->done, 1);
    pthread_t killer = test_thread(kill_in_a_moment, &victim);
    (void)publish(publisher, 2);
    (void)publish(publisher, 3);
    test_thread_join(killer);
    zcp_publisher_close(publisher);
    finish_topics(manager);
}

// Draining clients do not eat the tables: without a reliable subscriber they go when a slot or an entry is needed.
TEST(topic_draining_makes_way) {
    for (int reliable = 0; reliable < 2; reliable++) {
        zcp_config config = one_pool(64, 20);
        zcp_manager *manager, *others[3];
        config.publishers = 2;
        CHECK_OK(zcp_manager_open(&manager, &(zcp_manager_desc){.name = test_instance(), .config = &config,
                                                                .max_clients = 3}));
        zcp_subscriber *subscriber = subscriber_with(manager, (zcp_subscriber_desc){.reliable = reliable});
        for (int k = 0; k < 2; k++) {
            others[k] = attach();
            (void)publish(publisher_of(others[k], 4), (uint64_t)k);
        }
        zcp_manager_close(others[0]);
        zcp_manager_close(others[1]);
        CHECK_EQ(count_topics(manager).ended, 2);
        if (reliable) {
            CHECK_STATUS(zcp_manager_open(&others[0], &(zcp_manager_desc){.name = test_instance()}),
                         ZCP_ERR_CLIENTS_FULL);
            CHECK_NO_PUBLISHER(manager, ZCP_ERR_FULL, .topic = topic);
            (void)receive(subscriber, 1, 0);
            (void)receive(subscriber, 1, 1);
            check_empty(subscriber);
        } else {
            others[0] = attach();
            CHECK_EQ(count_topics(manager).ended, 1);
            zcp_publisher *publisher = publisher_of(manager, 4), *second = publisher_of(manager, 4);
            CHECK_EQ(count_topics(manager).ended, 0);
            zcp_publisher_close(publisher);
            zcp_publisher_close(second);
            check_empty(subscriber);
            zcp_manager_close(others[0]);
        }
        zcp_subscriber_close(subscriber);
        finish_topics(manager);
    }
}

// A publisher is killed when what somebody reads has left its ring: the claim alone keeps the chunk.
static void publish_step_by_step(void *argument) {
    told *t = argument;
    zcp_manager *manager = attach();
    zcp_publisher *publisher = publisher_of(manager, 2);
    (void)publish(publisher, 1);
    test_signal(&t->ready);
    test_await(&t->go_on, 1);
    for (uint64_t n = 2; n <= 6; n++)
        (void)publish(publisher, n);
    test_signal(&t->done);
    test_await(&t->go_on, 2);
}

TEST(topic_death_of_a_publisher_whose_ring_has_gone_on) {
    zcp_manager *manager = create(64, 10);
    zcp_subscriber *subscriber = subscriber_of(manager);
    told *t = new_told();
    pid_t victim = test_spawn(publish_step_by_step, t);
    test_await(&t->ready, 1);
    zcp_message message = receive(subscriber, 1, 1);
    test_signal(&t->go_on);
    test_await(&t->done, 1);
    CHECK_EQ(used(manager), 3);
    test_kill(victim);
    CHECK_RECOVERS(manager, 1, 0);
    for (int k = 0; k < 7; k++) {                                      // whoever needs a chunk does not get that one
        zcp_chunk chunk = allocate(manager, 64);
        pattern_write(&chunk, 99);
        check_payload(&message, 1);
    }
    CHECK_EQ(receive(subscriber, 5, 5).lost, 3);
    (void)receive(subscriber, 6, 6);
    check_empty(subscriber);
    CHECK_EQ(count_topics(manager).publishers, 0);
    CHECK_EQ(used(manager), 7);
    zcp_subscriber_close(subscriber);
    finish(manager);
}

// The ring goes on, and the chunk is used again, just before the message is claimed: the second look sees it.
static zcp_publisher *goes_on;
static uint64_t goes_on_from;

static void go_on(void) {
    for (int k = 0; k < 3; k++)
        (void)publish(goes_on, ++goes_on_from);
}

TEST(topic_overtaken_while_it_claims) {
    zcp_manager *manager = create(64, 4), *other = attach();
    zcp_subscriber *subscriber = subscriber_of(other);
    goes_on = publisher_of(manager, 2);
    for (uint64_t round = 0; round < 20; round++) {
        goes_on_from = round * 4 + 1;
        (void)publish(goes_on, goes_on_from);
        test_at_step(round % 2 ? "token_read" : "claimed_message", 1, TEST_CALL, go_on);
        zcp_message message;
        CHECK_OK(zcp_subscriber_receive(subscriber, 0, &message));
        test_steps_clear();
        // Either it has the one that it claimed, or the oldest that is there.
        CHECK_EQ(message.number, goes_on_from - 1);
        check_payload(&message, message.number);
        for (int k = 0; k < 4; k++)
            check_payload(&message, message.number);
        (void)receive(subscriber, goes_on_from, goes_on_from);
    }
    zcp_subscriber_close(subscriber);
    zcp_publisher_close(goes_on);
    zcp_manager_close(other);
    finish_topics(manager);
}

// Publishes as fast as it can, whoever comes.
static void publish_events(void *argument) {
    told *t = argument;
    zcp_manager *manager = attach();
    zcp_publisher *publisher = publisher_of(manager, t->depth);
    CHECK_OK(zcp_publisher_notify(publisher, NULL));
    test_signal(&t->ready);
    while (atomic_load(&t->done) == 0)
        (void)zcp_publisher_notify(publisher, NULL);
    zcp_manager_close(manager);
}

// A reliable subscriber misses nothing from its first moment on.
TEST_WITH(topic_race_to_subscribe, .seconds = 120, .weight = 2) {
    for (uint32_t depth = 1; depth <= 8; depth += 7) {
        zcp_manager *manager = create(64, 4);
        told *t = new_told();
        t->depth = depth;
        pid_t publisher = test_spawn(publish_events, t);
        test_await(&t->ready, 1);
        uint64_t until = test_now() + UINT64_C(500000000);         // one round takes long on a busy machine
        for (int round = 0; round == 0 || (round < ROUNDS(10000) && test_now() < until); round++) {
            zcp_message message;
            zcp_subscriber *subscriber = reliable_of(manager);
            zcp_status status;
            while ((status = zcp_subscriber_receive(subscriber, 0, &message)) == ZCP_ERR_EMPTY) {}
            CHECK_OK(status);
            CHECK_MSG(message.lost == 0, "round %d, message %llu: lost %llu", round,
                      (unsigned long long)message.number, (unsigned long long)message.lost);
            zcp_subscriber_close(subscriber);
        }
        test_signal(&t->done);
        test_join(publisher);
        finish_topics(manager);
    }
}

// At full speed, and overtaken all the time; what is read is never torn.
typedef struct race {
    _Atomic uint32_t ready, stop;
    uint32_t depth;
} race;

static void race_to_publish(void *argument) {
    race *r = argument;
    zcp_manager *manager = attach();
    zcp_publisher *publisher = publisher_of(manager, r->depth);
    for (uint64_t n = 1; !atomic_load(&r->stop); n++)
        (void)publish(publisher, n);
    zcp_publisher_close(publisher);
    zcp_manager_close(manager);
}

static void race_to_read(void *argument) {
    race *r = argument;
    zcp_manager *manager = attach();
    zcp_subscriber *subscriber = subscriber_with(manager, (zcp_subscriber_desc){.latest = test_random_below(2)});
    uint64_t numbers[4] = {0}, sources[4] = {0};
    for (int n = 0; !atomic_load(&r->stop); n++) {
        zcp_message message;
        zcp_chunk kept = {0};
        zcp_status status = zcp_subscriber_receive(subscriber, n % 2 ? 10 : 0, &message);
        if (status == ZCP_ERR_EMPTY || status == ZCP_ERR_TIMEOUT)
            continue;
        CHECK_OK(status);
        check_payload(&message, message.number);
        int s = 0;
        while (s < 3 && sources[s] != 0 && sources[s] != message.source)
            s++;
        CHECK(sources[s] != message.source || message.number == numbers[s] + message.lost + message.skipped + 1);
        sources[s] = message.source;
        numbers[s] = message.number;
        if (n % 16 == 0)
            CHECK_OK(zcp_subscriber_keep(subscriber, &kept));
        check_payload(&message, message.number);
        zcp_subscriber_done(subscriber);
        if (n % 16 == 0)
            pattern_check(&kept, message.number);
        zcp_chunk_release(&kept);
    }
    zcp_subscriber_close(subscriber);
    zcp_manager_close(manager);
}

TEST_WITH(topic_race, .seconds = 120, .weight = 2) {
    for (uint32_t depth = 1; depth <= 3; depth++) {
        zcp_config config = one_pool(64, 40);
        config.pools.items[0].cache_chunks = depth == 2 ? 4 : 0;
        zcp_manager *manager = create_named(test_instance(), &config, 0);
        race *r = test_shared(sizeof *r);
        r->depth = depth;
        pid_t pids[4];
        for (int k = 0; k < 4; k++)
            pids[k] = test_spawn(k < 2 ? race_to_publish : race_to_read, r);
        test_sleep(700);
        atomic_store(&r->stop, 1);
        for (int k = 0; k < 4; k++)
            test_join(pids[k]);
        (void)recover(manager);
        finish_topics(manager);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Killed at each step

static void killed_publisher(void *argument) {
    told *t = argument;
    zcp_manager *manager = attach();
    test_step_any_kill((int)t->skew);
    zcp_publisher *publisher;
    CHECK_OK(zcp_publisher_open(manager, &(zcp_publisher_desc){.topic = topic, .depth = 2}, &publisher));
    for (uint64_t n = 1; n <= t->messages; n++) {
        zcp_status status = try_publish(publisher, n, NULL);
        if (status == ZCP_OK)
            atomic_store(&t->received, n);
        else
            CHECK_EQ(status, ZCP_ERR_TIMEOUT);
    }
    zcp_publisher_close(publisher);
    zcp_manager_close(manager);
}

// All that it has said to be published arrives at the reliable subscriber, in order; what is in hand stays; and all
// comes back.
TEST_WITH(topic_publisher_killed_at_each_step, .seconds = 240) {
    zcp_manager *manager = create(64, 12);
    bool killed = true;
    for (uint32_t step = 1; killed; step += ROUNDS(4) > 4 ? 1 : 3) {
        told *t = new_told();
        t->skew = step, t->messages = 5;
        zcp_subscriber *reliable = reliable_of(manager), *other = subscriber_of(manager);
        pid_t victim = test_spawn(killed_publisher, t);
        zcp_message message;
        uint64_t seen = 0, others = 0;
        while (atomic_load(&t->received) == 0 && step > 60 && waitid(P_PID, (id_t)victim, &(siginfo_t){0},
                                                                     WEXITED | WNOHANG | WNOWAIT) == 0)
            if (zcp_subscriber_receive(other, 0, &message) == ZCP_OK)
                break;
        killed = test_join_killed(victim);
        while (zcp_subscriber_receive(reliable, 0, &message) == ZCP_OK) {
            CHECK_EQ(message.number, ++seen);
            CHECK_EQ(message.lost, 0);
            check_payload(&message, seen);
        }
        CHECK_MSG(seen >= atomic_load(&t->received) && seen <= atomic_load(&t->received) + 1, "step %u: %llu of %llu",
                  step,
                  (unsigned long long)seen, (unsigned long long)atomic_load(&t->received));
        while (zcp_subscriber_receive(other, 0, &message) == ZCP_OK) {
            CHECK(message.number > others);
            others = message.number;
            check_payload(&message, others);
        }
        zcp_subscriber_close(reliable);
        zcp_subscriber_close(other);
        (void)recover(manager);
        CHECK_MSG(used(manager) == 0, "step %u", step);
        CHECK_EQ(count_topics(manager).publishers, 0);
    }
    finish_topics(manager);
}

static void killed_subscriber(void *argument) {
    told *t = argument;
    zcp_manager *manager = attach();
    test_signal(&t->ready);
    test_await(&t->go_on, 1);
    test_step_any_kill((int)t->skew);
    zcp_subscriber *subscriber;
    CHECK_OK(zcp_subscriber_open(manager, &(zcp_subscriber_desc){.topic = topic, .reliable = true, .history = 2},
                                 &subscriber));
    for (int k = 0; k < 4; k++) {
        zcp_message message;
        zcp_chunk kept;
        if (zcp_subscriber_receive(subscriber, 0, &message) != ZCP_OK)
            continue;
        check_payload(&message, message.number);
        CHECK_OK(zcp_subscriber_keep(subscriber, &kept));
        zcp_subscriber_done(subscriber);
        pattern_check(&kept, kept.generation == 0 ? 0 : message.number);
        zcp_chunk_release(&kept);
    }
    zcp_subscriber_close(subscriber);
    zcp_manager_close(manager);
}

TEST_WITH(topic_subscriber_killed_at_each_step, .seconds = 240) {
    zcp_manager *manager = create(64, 12);
    zcp_publisher *publisher = publisher_with(manager, (zcp_publisher_desc){.depth = 4, .keep = 2,
                                                                            .timeout_ms = PATIENCE});
    zcp_subscriber *other = reliable_of(manager);
    uint64_t number = 0;
    bool killed = true;
    for (uint32_t step = 1; killed; step += ROUNDS(4) > 4 ? 1 : 3) {
        told *t = new_told();
        t->skew = step;
        pid_t victim = test_spawn(killed_subscriber, t);
        test_await(&t->ready, 1);
        for (int k = 0; k < 3; k++) {
            (void)publish(publisher, ++number + 0);
            (void)receive(other, number, number);
        }
        test_signal(&t->go_on);
        killed = test_join_killed(victim);
        for (int k = 0; k < 6; k++) {                                  // it holds nobody up
            (void)publish(publisher, ++number);
            (void)receive(other, number, number);
        }
        (void)recover(manager);
        counted count = count_topics(manager);
        CHECK_EQ(count.subscribers, 1);
        CHECK_MSG(used(manager) <= 5, "step %u: %llu", step, (unsigned long long)used(manager));
    }
    zcp_subscriber_close(other);
    zcp_publisher_close(publisher);
    finish_topics(manager);
}

static void killed_sweeper(void *argument) {
    told *t = argument;
    zcp_manager *manager = attach();
    test_signal(&t->ready);
    test_await(&t->go_on, 1);
    test_step_any_kill((int)t->skew);
    (void)recover(manager);
    zcp_manager_close(manager);
}

static void sweeper_killed_before_it_tells(void *argument) {
    told *t = argument;
    zcp_manager *manager = attach();
    test_signal(&t->ready);
    test_await(&t->go_on, 1);
    test_at_step("entries_ended", 1, TEST_KILL, NULL);
    (void)recover(manager);
}

// Who swept the publisher was killed before it told that this has ended. The next one tells it, or the subscriber would
// not sweep when it has read to the end.
TEST(topic_end_that_a_killed_sweeper_has_not_told) {
    zcp_manager *manager = create(64, 4);
    zcp_subscriber *subscriber = subscriber_of(manager);
    told *t = new_told(), *s = new_told();
    t->messages = t->depth = 1;
    pid_t sweeper = test_spawn(sweeper_killed_before_it_tells, s);
    test_await(&s->ready, 1);
    pid_t victim = test_spawn(publish_and_wait, t);
    test_await(&t->ready, 1);
    CHECK(zcp_subscribers_wait(&subscriber, 1, 0, &(uint32_t){0}) == ZCP_OK);  // it has met the publisher
    test_kill(victim);
    test_signal(&s->go_on);
    CHECK(test_join_killed(sweeper));
    (void)recover(manager);
    CHECK_EQ(count_topics(manager).ended, 1);
    (void)receive(subscriber, 1, 1);
    check_empty(subscriber);
    CHECK_EQ(count_topics(manager).publishers, 0);
    CHECK_EQ(used(manager), 0);
    zcp_subscriber_close(subscriber);
    finish_topics(manager);
}

// Who sweeps a publisher that was killed is killed, too.
TEST_WITH(topic_sweeper_killed_at_each_step, .seconds = 240) {
    zcp_manager *manager = create(64, 12);
    bool killed = true;
    for (uint32_t step = 1; killed; step += ROUNDS(4) > 4 ? 1 : 3) {
        told *t = new_told(), *s = new_told();
        t->messages = 4, t->depth = 4, s->skew = step;
        zcp_subscriber *reliable = reliable_of(manager), *other = subscriber_of(manager);
        pid_t sweeper = test_spawn(killed_sweeper, s);
        test_await(&s->ready, 1);
        pid_t victim = test_spawn(publish_and_wait, t);
        test_await(&t->ready, 1);
        zcp_message in_hand = receive(other, 1, 1);
        CHECK_OK(zcp_subscriber_receive(reliable, 0, &(zcp_message){0}));
        test_kill(victim);
        test_signal(&s->go_on);
        killed = test_join_killed(sweeper);
        check_payload(&in_hand, 1);
        check_inheritance(reliable, 2, 4);
        check_payload(&in_hand, 1);
        zcp_subscriber_close(other);
        zcp_subscriber_close(reliable);
        (void)recover(manager);
        CHECK_EQ(count_topics(manager).publishers, 0);
        CHECK_MSG(used(manager) == 0, "step %u", step);
    }
    finish_topics(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Garbage in the tables: it may cost messages, but nothing hangs, nothing outside is touched, and no chunk is lost for
// good

TEST_WITH(topic_garbage_in_the_tables, .seconds = 240) {
    zcp_config config = one_pool(64, 12);
    config.publishers = 2, config.subscribers = 3, config.ring_cells = 4;
    for (int round = 0; round < ROUNDS(40); round++) {
        zcp_manager *manager;
        CHECK_OK(zcp_manager_open(&manager, &(zcp_manager_desc){.name = test_instance(), .config = &config,
                                                                .max_clients = 4}));
        zcp_manager *other = attach();
        zcp_manager_info info;
        CHECK_OK(zcp_manager_get_info(manager, &info));
        const size_t first = 4096 + 4 * 128, last = first + 2 * 192 + 3 * 128 + 2 * 3 * 64 + 2 * 4 * 16;
        zcp_publisher *publisher = publisher_of(manager, 4);
        zcp_subscriber *subscribers[] = {subscriber_of(manager), reliable_of(other)};
        int descriptor = zcp_subscriber_descriptor(subscribers[1]);
        CHECK(descriptor >= 3);
        for (int k = 0; k < 60; k++) {
            size_t at = first + (size_t)test_random_below((last - first) / 8) * 8;
            _Atomic uint64_t *word = (_Atomic uint64_t *)(void *)((unsigned char *)info.management_base + at);
            uint64_t was = atomic_load(word);
            switch (test_random_below(5)) {
            case 0: was = test_random(); break;
            case 1: was = UINT64_MAX; break;
            case 2: was ^= UINT64_C(1) << test_random_below(64); break;
            case 3: was = test_random_below(8) << 32 | test_random_below(8); break;
            default: was = 0;
            }
            atomic_store(word, was);
            zcp_message message;
            zcp_chunk kept;
            zcp_status status = try_publish(publisher, (uint64_t)k, NULL);
            CHECK(status == ZCP_OK || status == ZCP_ERR_TIMEOUT || status == ZCP_ERR_EXHAUSTED);
            for (int s = 0; s < 2; s++) {
                status = zcp_subscriber_receive(subscribers[s], (uint32_t)test_random_below(2), &message);
                if (status != ZCP_OK)
                    continue;
                const unsigned char *bytes = message.data;
                CHECK(message.size <= 64 && (message.size == 0) == (bytes == NULL));
                CHECK(message.publisher < 4);
                unsigned sum = 0;
                for (uint64_t i = 0; i < message.size; i++)
                    sum += bytes[i];
                CHECK(sum <= 64 * 255);
                if (test_random_below(4) == 0 && zcp_subscriber_keep(subscribers[s], &kept) == ZCP_OK)
                    zcp_chunk_release(&kept);
            }
            if (test_random_below(8) == 0)
                (void)zcp_manager_recover(manager, NULL);
            (void)count_topics(other);
        }
        zcp_subscriber_close(subscribers[test_random_below(2)]);
        zcp_manager_close(other);
        zcp_publisher_close(publisher);
        zcp_manager_close(manager);
        CHECK_OK(zcp_manager_destroy(test_instance()));
    }
}

// Flips the depth of the first publisher's entry between what it is and 0.
static void flip_depth(void *argument) {
    told *t = argument;
    zcp_manager *manager = attach();
    zcp_manager_info info;
    CHECK_OK(zcp_manager_get_info(manager, &info));
    unsigned char *entry = (unsigned char *)info.management_base + 4096 + 4 * 128;
    _Atomic uint32_t *depth = (_Atomic uint32_t *)(void *)(entry + 16);
    CHECK_EQ(atomic_load(depth), t->depth);
    test_signal(&t->ready);
    while (atomic_load(&t->done) == 0) {
        atomic_store(depth, 0u);
        atomic_store(depth, t->depth);
    }
    zcp_manager_close(manager);
}

TEST(topic_depth_that_changes_under_who_looks) {
    zcp_config config = one_pool(64, 12);
    config.publishers = 2, config.subscribers = 3, config.ring_cells = 4;
    zcp_manager *manager;
    CHECK_OK(zcp_manager_open(&manager, &(zcp_manager_desc){.name = test_instance(), .config = &config,
                                                            .max_clients = 4}));
    zcp_publisher *publisher = publisher_of(manager, 4);
    zcp_subscriber *subscriber = subscriber_of(manager);
    for (uint64_t n = 1; n <= 4; n++)
        (void)publish(publisher, n);
    told *t = new_told();
    t->depth = 4;
    pid_t flipper = test_spawn(flip_depth, t);
    test_await(&t->ready, 1);
    uint64_t unread = 0;
    for (int k = 0; k < ROUNDS(200000); k++) {
        counted count = count_topics(manager);
        CHECK(count.last.unread <= 4 && count.last.held <= 4);
        unread += count.last.unread;
    }
    CHECK(unread != 0);
    test_signal(&t->done);
    test_join(flipper);
    zcp_subscriber_close(subscriber);
    zcp_publisher_close(publisher);
    finish_topics(manager);
}
