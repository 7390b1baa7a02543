"""pika's tutorial six, the side that asks: URL QUEUE NUMBER. It writes the answer."""
import sys
import uuid

import pika

url, queue, number = sys.argv[1:]
connection = pika.BlockingConnection(pika.URLParameters(url))
channel = connection.channel()
callback_queue = channel.queue_declare(queue='', exclusive=True).method.queue
correlation_id = str(uuid.uuid4())
response = None


def on_response(ch, method, props, body):
    global response
    if props.correlation_id == correlation_id:
        response = body


channel.basic_consume(queue=callback_queue, on_message_callback=on_response, auto_ack=True)
channel.basic_publish(exchange='', routing_key=queue, body=number,
                      properties=pika.BasicProperties(reply_to=callback_queue, correlation_id=correlation_id))
while response is None:
    connection.process_data_events(time_limit=None)
print(response.decode(), flush=True)
connection.close()
