// bench/peers/fastdds.cpp: Fast DDS, reliable, all history kept: a sample is loaned, written in place, and by its data
// sharing taken in place. A type that is a row of bytes, so nothing is marshalled.
#include "../messenger.h"

#include <cstdio>
#include <cstring>
#include <fastdds/dds/core/LoanableSequence.hpp>
#include <fastdds/dds/domain/DomainParticipant.hpp>
#include <fastdds/dds/domain/DomainParticipantFactory.hpp>
#include <fastdds/dds/log/Log.hpp>
#include <fastdds/dds/publisher/DataWriter.hpp>
#include <fastdds/dds/publisher/Publisher.hpp>
#include <fastdds/dds/subscriber/DataReader.hpp>
#include <fastdds/dds/subscriber/SampleInfo.hpp>
#include <fastdds/dds/subscriber/Subscriber.hpp>
#include <fastdds/dds/topic/TopicDataType.hpp>
#include <unistd.h>

namespace fast = eprosima::fastdds::dds;
namespace rtps = eprosima::fastrtps::rtps;
using eprosima::fastrtps::types::ReturnCode_t;

static bench_host *host;

namespace {

class row_type : public fast::TopicDataType {
public:
    explicit row_type(uint32_t bytes) : bytes_(bytes) {
        setName(("row" + std::to_string(bytes)).c_str());
        m_typeSize = bytes + header;
        m_isGetKeyDefined = false;
    }

    bool serialize(void *data, rtps::SerializedPayload_t *payload) override {
        static const unsigned char little_endian[header] = {0, 1, 0, 0};
        memcpy(payload->data, little_endian, header);
        memcpy(payload->data + header, data, bytes_);
        payload->encapsulation = CDR_LE;
        payload->length = bytes_ + header;
        return true;
    }

    bool deserialize(rtps::SerializedPayload_t *payload, void *data) override {
        memcpy(data, payload->data + header, bytes_);
        return true;
    }

    std::function<uint32_t()> getSerializedSizeProvider(void *) override {
        return [this]() { return bytes_ + static_cast<uint32_t>(header); };
    }

    void *createData() override { return new unsigned char[bytes_](); }
    void deleteData(void *data) override { delete[] static_cast<unsigned char *>(data); }
    bool getKey(void *, rtps::InstanceHandle_t *, bool) override { return false; }
    bool is_bounded() const override { return true; }
    bool is_plain() const override { return true; }
    bool construct_sample(void *memory) const override {
        memset(memory, 0, bytes_);
        return true;
    }

private:
    enum { header = 4 };
    uint32_t bytes_;
};

fast::DomainParticipant *participant;                               // this process's
int joined, domain;

struct carry_channel {
    channel_spec spec;
    fast::Topic *topic;
    fast::Publisher *publisher;
    fast::DataWriter *writer;
    fast::Subscriber *subscriber;
    fast::DataReader *reader;
    void *loaned;
    fast::LoanableSequence<uint64_t> samples;
    fast::SampleInfoSeq infos;
};

void must(bool good, const char *what) {
    if (!good)
        host->die("fastdds: %s", what);
}

void *carry_create(const channel_spec *spec) {
    carry_channel *channel = new carry_channel();
    domain = static_cast<int>(getpid()) % 200;                     // of the bench, not of its workers
    channel->spec = *spec;
    return channel;
}

template <class qos_type> void set_qos(qos_type &qos, const channel_spec &spec) {
    const int32_t window = static_cast<int32_t>(spec.window);
    qos.reliability().kind = fast::RELIABLE_RELIABILITY_QOS;
    qos.durability().kind = fast::VOLATILE_DURABILITY_QOS;
    qos.history().kind = fast::KEEP_ALL_HISTORY_QOS;
    qos.resource_limits().max_instances = 1;
    qos.resource_limits().max_samples = window;
    qos.resource_limits().max_samples_per_instance = window;
    qos.resource_limits().allocated_samples = window;
    qos.resource_limits().extra_samples = 2;
}

void carry_join(void *memory, int role) {
    carry_channel *channel = static_cast<carry_channel *>(memory);
    char name[32];
    if (joined++ == 0) {
        fast::Log::ClearConsumers();
        participant = fast::DomainParticipantFactory::get_instance()->create_participant(
            static_cast<uint32_t>(domain), fast::PARTICIPANT_QOS_DEFAULT);
        must(participant, "no participant");
    }
    fast::TypeSupport type(new row_type(static_cast<uint32_t>(channel->spec.bytes)));
    type.register_type(participant);
    snprintf(name, sizeof name, "bench%u", channel->spec.number);
    channel->topic = participant->create_topic(name, type.get_type_name(), fast::TOPIC_QOS_DEFAULT);
    must(channel->topic, "no topic");
    if (role == 0) {
        channel->publisher = participant->create_publisher(fast::PUBLISHER_QOS_DEFAULT);
        must(channel->publisher, "no publisher");
        fast::DataWriterQos qos = fast::DATAWRITER_QOS_DEFAULT;
        set_qos(qos, channel->spec);
        qos.reliability().max_blocking_time = {0, 20000000};
        channel->writer = channel->publisher->create_datawriter(channel->topic, qos);
        must(channel->writer, "no writer");
    } else {
        channel->subscriber = participant->create_subscriber(fast::SUBSCRIBER_QOS_DEFAULT);
        must(channel->subscriber, "no subscriber");
        fast::DataReaderQos qos = fast::DATAREADER_QOS_DEFAULT;
        set_qos(qos, channel->spec);
        channel->reader = channel->subscriber->create_datareader(channel->topic, qos);
        must(channel->reader, "no reader");
    }
}

void carry_leave(void *memory, int) {
    carry_channel *channel = static_cast<carry_channel *>(memory);
    if (channel->loaned)
        channel->writer->discard_loan(channel->loaned);
    if (--joined == 0) {
        participant->delete_contained_entities();
        fast::DomainParticipantFactory::get_instance()->delete_participant(participant);
    }
}

void carry_destroy(void *memory) {
    delete static_cast<carry_channel *>(memory);
}

inline size_t carry_bytes(const carry_channel *channel) { return channel->spec.bytes; }

inline void *carry_loan(carry_channel *channel) {
    const auto as_it_is = fast::DataWriter::LoanInitializationKind::NO_LOAN_INITIALIZATION;
    if (!channel->loaned && channel->writer->loan_sample(channel->loaned, as_it_is) != ReturnCode_t::RETCODE_OK)
        channel->loaned = NULL;
    return channel->loaned;
}

inline bool carry_send(carry_channel *channel) {
    if (!channel->writer->write(channel->loaned))
        return false;
    channel->loaned = NULL;
    return true;
}

inline const void *carry_wait(carry_channel *channel) {
    if (channel->reader->take(channel->samples, channel->infos, 1) != ReturnCode_t::RETCODE_OK
        && (!channel->reader->wait_for_unread_message({0, 20000000})
            || channel->reader->take(channel->samples, channel->infos, 1) != ReturnCode_t::RETCODE_OK))
        return NULL;
    if (channel->infos.length() == 1 && channel->infos[0].valid_data)
        return &channel->samples[0];
    channel->reader->return_loan(channel->samples, channel->infos);
    return NULL;
}

inline void carry_done(carry_channel *channel) { channel->reader->return_loan(channel->samples, channel->infos); }

#define LOOP(x) carry_##x
#define LOOP_SLEEPS
#define channel_type carry_channel
#define carry_host host
#define carry_name "fastdds"
#include "../topic_loops.h"

const messenger carrier = {
    "fastdds", "Fast DDS, reliable, by loans and data sharing", carry_create, carry_join, carry_leave,
    carry_destroy, LOOP_TABLE};

} // namespace

EXPORT_MESSENGER(carrier, host)
