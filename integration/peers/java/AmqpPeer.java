import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.DefaultConsumer;
import com.rabbitmq.client.Envelope;
import com.rabbitmq.client.LongString;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Date;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;

/** amqp-client: publish URL EXCHANGE ROUTING_KEY | consume URL QUEUE COUNT | declare URL QUEUE */
final class AmqpPeer {
    private AmqpPeer() {}

    public static void main(String[] args) throws Exception {
        var factory = new ConnectionFactory();
        factory.setUri(args[1]);
        try (var connection = factory.newConnection(); var channel = connection.createChannel()) {
            switch (args[0]) {
                case "publish" -> publish(channel, args[2], args[3]);
                case "consume" -> consume(channel, args[2], Integer.parseInt(args[3]));
                case "declare" -> channel.queueDeclare(args[2], false, false, false, null);
                default -> throw new IllegalArgumentException(args[0]);
            }
        }
    }

    private static void publish(Channel channel, String exchange, String routingKey) throws Exception {
        channel.confirmSelect();
        for (var line : Lines.read()) {
            channel.basicPublish(exchange, routingKey, properties(line), Lines.decode(line.get("body")));
        }
        channel.waitForConfirmsOrDie(30_000);
    }

    private static AMQP.BasicProperties properties(JsonObject line) {
        var builder = new AMQP.BasicProperties.Builder();
        if (line.has("properties")) {
            line.getAsJsonObject("properties").entrySet().forEach(e -> property(builder, e.getKey(), e.getValue()));
        }
        if (line.has("headers")) {
            builder.headers(table(line.getAsJsonObject("headers")));
        }
        return builder.build();
    }

    private static void property(AMQP.BasicProperties.Builder builder, String name, JsonElement value) {
        switch (name) {
            case "content_type" -> builder.contentType(value.getAsString());
            case "content_encoding" -> builder.contentEncoding(value.getAsString());
            case "delivery_mode" -> builder.deliveryMode(value.getAsInt());
            case "priority" -> builder.priority(value.getAsInt());
            case "correlation_id" -> builder.correlationId(value.getAsString());
            case "reply_to" -> builder.replyTo(value.getAsString());
            case "expiration" -> builder.expiration(value.getAsString());
            case "message_id" -> builder.messageId(value.getAsString());
            case "timestamp" -> builder.timestamp(new Date(value.getAsLong() * 1000));
            case "type" -> builder.type(value.getAsString());
            case "user_id" -> builder.userId(value.getAsString());
            case "app_id" -> builder.appId(value.getAsString());
            default -> throw new IllegalArgumentException(name);
        }
    }

    private static Map<String, Object> table(JsonObject object) {
        var table = new LinkedHashMap<String, Object>();
        object.entrySet().forEach(e -> table.put(e.getKey(), value(e.getValue())));
        return table;
    }

    private static Object value(JsonElement e) {
        if (e.isJsonNull()) {
            return null;
        }
        if (e.isJsonArray()) {
            return new ArrayList<>(e.getAsJsonArray().asList().stream().map(AmqpPeer::value).toList());
        }
        if (e.isJsonObject()) {
            var object = e.getAsJsonObject();
            if (object.has("bytes")) {
                return Lines.decode(object.get("bytes"));
            }
            return object.has("time") ? new Date(object.get("time").getAsLong() * 1000) : table(object.getAsJsonObject("table"));
        }
        var primitive = e.getAsJsonPrimitive();
        if (primitive.isBoolean()) {
            return primitive.getAsBoolean();
        }
        if (primitive.isString()) {
            return primitive.getAsString();
        }
        var number = primitive.getAsBigDecimal();
        if (number.scale() > 0) {
            return number.doubleValue();
        }
        if (number.longValueExact() == number.intValue()) {
            return number.intValue(); // a conditional would make a long of both
        }
        return number.longValueExact();
    }

    private static void consume(Channel channel, String queue, int count) throws Exception {
        var left = new CountDownLatch(count);
        channel.basicQos(1);
        channel.basicConsume(queue, false, new DefaultConsumer(channel) {
            @Override
            public void handleDelivery(String tag, Envelope envelope, AMQP.BasicProperties properties, byte[] body) throws IOException {
                if (left.getCount() == 0) {
                    return; // it goes back to the queue when the channel closes
                }
                write(properties, body);
                channel.basicAck(envelope.getDeliveryTag(), false);
                left.countDown();
            }
        });
        left.await();
    }

    private static void write(AMQP.BasicProperties p, byte[] body) {
        var properties = new LinkedHashMap<String, Object>();
        properties.put("content_type", p.getContentType());
        properties.put("content_encoding", p.getContentEncoding());
        properties.put("delivery_mode", p.getDeliveryMode());
        properties.put("priority", p.getPriority());
        properties.put("correlation_id", p.getCorrelationId());
        properties.put("reply_to", p.getReplyTo());
        properties.put("expiration", p.getExpiration());
        properties.put("message_id", p.getMessageId());
        properties.put("timestamp", p.getTimestamp() == null ? null : p.getTimestamp().getTime() / 1000);
        properties.put("type", p.getType());
        properties.put("user_id", p.getUserId());
        properties.put("app_id", p.getAppId());
        properties.values().removeIf(v -> v == null);
        var headers = p.getHeaders() == null ? Map.of() : ((Map<?, ?>) readable(p.getHeaders())).get("table");
        var line = new LinkedHashMap<String, Object>();
        line.put("body", Lines.encode(body));
        line.put("properties", properties);
        line.put("headers", headers);
        Lines.write(line);
    }

    private static Object readable(Object value) {
        if (value instanceof LongString text) {
            return text.toString();
        }
        if (value instanceof byte[] bytes) {
            return Map.of("bytes", Lines.encode(bytes));
        }
        if (value instanceof Date date) {
            return Map.of("time", date.getTime() / 1000);
        }
        if (value instanceof List<?> list) {
            return list.stream().map(AmqpPeer::readable).toList();
        }
        if (value instanceof Map<?, ?> map) {
            var table = new LinkedHashMap<String, Object>();
            map.forEach((name, v) -> table.put(name.toString(), readable(v)));
            return Map.of("table", table);
        }
        return value;
    }
}
