"""aio-pika: publish URL EXCHANGE ROUTING_KEY | consume URL QUEUE COUNT | declare URL QUEUE"""
import asyncio
import sys

import aio_pika
import lines

PROPERTIES = ('content_type', 'content_encoding', 'priority', 'correlation_id', 'reply_to', 'message_id', 'type', 'user_id', 'app_id')


async def publish(channel, exchange, routing_key):
    exchange = await channel.get_exchange(exchange) if exchange else channel.default_exchange
    for line in lines.read():
        properties = dict(line.get('properties', {}))
        if 'expiration' in properties:  # aio-pika has seconds where the protocol has milliseconds
            properties['expiration'] = int(properties['expiration']) / 1000
        headers = {name: lines.to_table(v, raw=bytearray) for name, v in line.get('headers', {}).items()}
        await exchange.publish(aio_pika.Message(lines.decode(line['body']), headers=headers, **properties), routing_key=routing_key)


async def consume(channel, queue, count):
    left = int(count)
    await channel.set_qos(prefetch_count=1)
    queue = await channel.get_queue(queue)
    async with queue.iterator() as messages:
        async for message in messages:
            async with message.process():
                properties = {name: getattr(message, name) for name in PROPERTIES if getattr(message, name) is not None}
                if message.delivery_mode is not None:
                    properties['delivery_mode'] = int(message.delivery_mode)
                if message.timestamp is not None:
                    properties['timestamp'] = int(message.timestamp.timestamp())
                if message.expiration is not None:
                    properties['expiration'] = str(round(message.expiration * 1000))
                headers = {name: lines.from_table(v) for name, v in message.headers.items()}
                lines.write({'body': lines.encode(message.body), 'properties': properties, 'headers': headers})
            left -= 1
            if left == 0:
                break


async def declare(channel, queue):
    await channel.declare_queue(queue)


async def main(command, url, *args):
    connection = await aio_pika.connect_robust(url)
    async with connection:
        await {'publish': publish, 'consume': consume, 'declare': declare}[command](await connection.channel(), *args)


asyncio.run(main(*sys.argv[1:]))
