"""The first program that everybody writes with pika: URL QUEUE [durable]"""
import json
import sys

import pika

url, queue, *durable = sys.argv[1:]
connection = pika.BlockingConnection(pika.URLParameters(url))
channel = connection.channel()
channel.queue_declare(queue=queue, durable=bool(durable))

message = {"id": 1, "text": "Hello World", "timestamp": 1625512731}
channel.basic_publish(exchange='', routing_key=queue, body=json.dumps(message))
connection.close()
