"""The second one, which ends after a message: URL QUEUE [durable]. It says that it is ready, and what it got, each in a line."""
import json
import sys

import pika

url, queue, *durable = sys.argv[1:]
connection = pika.BlockingConnection(pika.URLParameters(url))
channel = connection.channel()
channel.queue_declare(queue=queue, durable=bool(durable))


def callback(ch, method, properties, body):
    message = json.loads(body)
    print(f"id {message['id']}, text {message['text']}, timestamp {message['timestamp']}", flush=True)
    ch.stop_consuming()


channel.basic_consume(queue=queue, on_message_callback=callback, auto_ack=True)
print('ready', flush=True)
channel.start_consuming()
connection.close()
