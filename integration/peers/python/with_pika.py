"""pika: publish URL EXCHANGE ROUTING_KEY | consume URL QUEUE COUNT | declare URL QUEUE | bind URL EXCHANGE ROUTING_KEY QUEUE"""
import sys

import lines
import pika

PROPERTIES = ('content_type', 'content_encoding', 'delivery_mode', 'priority', 'correlation_id', 'reply_to', 'expiration',
              'message_id', 'timestamp', 'type', 'user_id', 'app_id')


def publish(channel, exchange, routing_key):
    for line in lines.read():
        properties = pika.BasicProperties(headers=lines.to_table({'table': line.get('headers', {})}), **line.get('properties', {}))
        channel.basic_publish(exchange=exchange, routing_key=routing_key, properties=properties, body=lines.decode(line['body']))


def consume(channel, queue, count):
    left = int(count)
    channel.basic_qos(prefetch_count=1)
    for method, properties, body in channel.consume(queue):
        lines.write({
            'body': lines.encode(body),
            'properties': {name: getattr(properties, name) for name in PROPERTIES if getattr(properties, name) is not None},
            'headers': lines.from_table(properties.headers or {})['table'],
        })
        channel.basic_ack(method.delivery_tag)
        left -= 1
        if left == 0:
            break


def declare(channel, queue):
    channel.queue_declare(queue=queue)


def bind(channel, exchange, routing_key, queue):
    channel.queue_declare(queue=queue)
    channel.queue_bind(queue=queue, exchange=exchange, routing_key=routing_key)


connection = pika.BlockingConnection(pika.URLParameters(sys.argv[2]))
commands = {'publish': publish, 'consume': consume, 'declare': declare, 'bind': bind}
commands[sys.argv[1]](connection.channel(), *sys.argv[3:])
connection.close()
