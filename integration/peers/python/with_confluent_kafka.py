"""confluent-kafka: publish SERVERS TOPIC [OPTION=VALUE...] | consume SERVERS TOPIC COUNT | member SERVERS TOPIC GROUP"""
import sys
import uuid

import lines
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, KafkaException, Producer


def publish(servers, topic, *options):
    producer = Producer({'bootstrap.servers': servers, 'acks': 'all', **lines.options(options)})

    def delivered(error, message):
        if error is not None:
            raise KafkaException(error)

    for line in lines.read():
        more = {name: line[name] for name in ('partition', 'timestamp') if name in line}
        headers = [(name, lines.decode(value)) for name, value in line.get('headers', [])]
        producer.produce(topic, key=lines.decode(line.get('key')), value=lines.decode(line.get('value')), headers=headers,
                         on_delivery=delivered, **more)
    if producer.flush(30):
        sys.exit('messages are left')


def write(message):
    kind, timestamp = message.timestamp()
    lines.write({
        'key': lines.encode(message.key()), 'value': lines.encode(message.value()), 'partition': message.partition(),
        'timestamp': None if kind == TIMESTAMP_NOT_AVAILABLE else timestamp,
        'headers': [[name, lines.encode(value)] for name, value in message.headers() or []],
    })


def consumer(servers, group):
    return Consumer({'bootstrap.servers': servers, 'group.id': group, 'auto.offset.reset': 'earliest', 'enable.auto.commit': False,
                     'heartbeat.interval.ms': 500})


def poll(consumer, timeout):
    message = consumer.poll(timeout)
    if message is not None and message.error():
        raise KafkaException(message.error())
    return message


def consume(servers, topic, count):
    left = int(count)
    c = consumer(servers, str(uuid.uuid4()))
    c.subscribe([topic])
    while left:
        message = poll(c, 1.0)
        if message is not None:
            write(message)
            left -= 1
    c.close()


def member(servers, topic, group):
    ended = lines.end_of_input()
    c = consumer(servers, group)
    c.subscribe([topic], on_assign=lambda _, assigned: lines.write({'assigned': sorted(p.partition for p in assigned)}))
    while not ended.is_set():
        message = poll(c, 0.2)
        if message is not None:
            write(message)
            c.commit(message=message, asynchronous=False)
    c.close()


{'publish': publish, 'consume': consume, 'member': member}[sys.argv[1]](*sys.argv[2:])
