"""pika: URL QUEUE and the other arguments of queue_declare as JSON."""
import json
import sys

import pika

url, queue, arguments = sys.argv[1:]
connection = pika.BlockingConnection(pika.URLParameters(url))
connection.channel().queue_declare(queue=queue, **json.loads(arguments))
connection.close()
