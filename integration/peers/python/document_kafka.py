"""The first two programs that everybody writes with kafka-python: send SERVERS TOPIC | receive SERVERS TOPIC"""
import json
import sys

from kafka import KafkaConsumer, KafkaProducer

command, servers, topic = sys.argv[1:]
if command == 'send':
    producer = KafkaProducer(bootstrap_servers=servers, value_serializer=lambda v: json.dumps(v).encode('utf-8'))
    producer.send(topic, {"id": 1, "text": "Hello World", "timestamp": 1625512731})
    producer.flush()
    producer.close()
else:
    consumer = KafkaConsumer(topic, bootstrap_servers=servers, auto_offset_reset='earliest', value_deserializer=lambda v: json.loads(v.decode('utf-8')))
    for record in consumer:
        message = record.value
        print(f"id {message['id']}, text {message['text']}, timestamp {message['timestamp']}")
        break
    consumer.close()
