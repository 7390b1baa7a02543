"""kafka-python: publish SERVERS TOPIC [OPTION=VALUE...] | consume SERVERS TOPIC COUNT | member SERVERS TOPIC GROUP"""
import sys

import lines
from kafka import ConsumerRebalanceListener, KafkaConsumer, KafkaProducer


def publish(servers, topic, *options):
    producer = KafkaProducer(bootstrap_servers=servers, acks='all', **lines.options(options))
    sent = []
    for line in lines.read():
        headers = [(name, lines.decode(value)) for name, value in line.get('headers', [])]
        sent.append(producer.send(topic, key=lines.decode(line.get('key')), value=lines.decode(line.get('value')), headers=headers,
                                  partition=line.get('partition'), timestamp_ms=line.get('timestamp')))
    producer.flush()
    for future in sent:
        future.get(timeout=30)
    producer.close()


def write(record):
    lines.write({
        'key': lines.encode(record.key), 'value': lines.encode(record.value), 'timestamp': record.timestamp, 'partition': record.partition,
        'headers': [[name, lines.encode(value)] for name, value in record.headers],
    })


def consume(servers, topic, count):
    left = int(count)
    consumer = KafkaConsumer(topic, bootstrap_servers=servers, auto_offset_reset='earliest', enable_auto_commit=False)
    for record in consumer:
        write(record)
        left -= 1
        if left == 0:
            break
    consumer.close()


class Tell(ConsumerRebalanceListener):
    def on_partitions_revoked(self, revoked):
        pass

    def on_partitions_assigned(self, assigned):
        lines.write({'assigned': sorted(p.partition for p in assigned)})


def member(servers, topic, group):
    ended = lines.end_of_input()
    consumer = KafkaConsumer(bootstrap_servers=servers, group_id=group, auto_offset_reset='earliest', enable_auto_commit=False,
                             heartbeat_interval_ms=500)
    # A leader that joins before it knows the topic assigns nothing and joins again when it does; 3.0.12 then hangs once in a while,
    # with SyncGroup answered, and asks for nothing more.
    consumer.partitions_for_topic(topic)
    consumer.subscribe([topic], listener=Tell())
    while not ended.is_set():
        polled = consumer.poll(timeout_ms=200)
        for records in polled.values():
            for record in records:
                write(record)
        if polled:
            consumer.commit()
    consumer.close()


{'publish': publish, 'consume': consume, 'member': member}[sys.argv[1]](*sys.argv[2:])
