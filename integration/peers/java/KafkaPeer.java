import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.UUID;
import java.util.concurrent.Future;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** kafka-clients: publish SERVERS TOPIC [OPTION=VALUE...] | consume SERVERS TOPIC COUNT | member SERVERS TOPIC GROUP [OPTION=VALUE...] */
final class KafkaPeer {
    private KafkaPeer() {}

    public static void main(String[] args) throws Exception {
        var options = Arrays.asList(args).subList(Math.min(args.length, args[0].equals("publish") ? 3 : 4), args.length);
        switch (args[0]) {
            case "publish" -> publish(args[1], args[2], options);
            case "consume" -> consume(args[1], args[2], Integer.parseInt(args[3]));
            case "member" -> member(args[1], args[2], args[3], options);
            default -> throw new IllegalArgumentException(args[0]);
        }
    }

    private static Properties properties(String servers, List<String> options) {
        var properties = new Properties();
        properties.put("bootstrap.servers", servers);
        for (var option : options) {
            var pair = option.split("=", 2);
            properties.put(pair[0], pair[1]);
        }
        return properties;
    }

    private static void publish(String servers, String topic, List<String> options) throws Exception {
        var properties = properties(servers, options);
        try (var producer = new KafkaProducer<>(properties, new ByteArraySerializer(), new ByteArraySerializer())) {
            var transactional = properties.containsKey("transactional.id");
            if (transactional) {
                producer.initTransactions();
                producer.beginTransaction();
            }
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (var line : Lines.read()) {
                if (line.has("commit")) {
                    producer.flush();
                    if (line.get("commit").getAsBoolean()) {
                        producer.commitTransaction();
                    } else {
                        producer.abortTransaction();
                    }
                    producer.beginTransaction();
                    continue;
                }
                sent.add(producer.send(record(topic, line)));
            }
            producer.flush();
            for (var future : sent) {
                future.get();
            }
            if (transactional) {
                producer.commitTransaction();
            }
        }
    }

    private static ProducerRecord<byte[], byte[]> record(String topic, JsonObject line) {
        var headers = new RecordHeaders();
        if (line.has("headers")) {
            for (JsonElement pair : line.getAsJsonArray("headers")) {
                headers.add(pair.getAsJsonArray().get(0).getAsString(), Lines.decode(pair.getAsJsonArray().get(1)));
            }
        }
        var partition = line.has("partition") ? line.get("partition").getAsInt() : null;
        var timestamp = line.has("timestamp") ? line.get("timestamp").getAsLong() : null;
        return new ProducerRecord<>(topic, partition, timestamp, Lines.decode(line.get("key")), Lines.decode(line.get("value")), headers);
    }

    private static KafkaConsumer<byte[], byte[]> consumer(String servers, String group, List<String> options) {
        var properties = properties(servers, options);
        properties.put("group.id", group);
        properties.put("auto.offset.reset", "earliest");
        properties.put("enable.auto.commit", "false");
        if (!"consumer".equals(properties.get("group.protocol"))) { // there the broker sets it
            properties.put("heartbeat.interval.ms", "500");
        }
        return new KafkaConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private static void write(ConsumerRecord<byte[], byte[]> record) {
        var line = new LinkedHashMap<String, Object>();
        line.put("key", Lines.encode(record.key()));
        line.put("value", Lines.encode(record.value()));
        line.put("timestamp", record.timestamp());
        line.put("partition", record.partition());
        var headers = new ArrayList<List<String>>();
        for (var header : record.headers()) {
            headers.add(Arrays.asList(header.key(), Lines.encode(header.value())));
        }
        line.put("headers", headers);
        Lines.write(line);
    }

    private static void consume(String servers, String topic, int count) {
        try (var consumer = consumer(servers, UUID.randomUUID().toString(), List.of())) {
            consumer.subscribe(List.of(topic));
            for (var left = count; left > 0; ) {
                for (var record : consumer.poll(Duration.ofSeconds(1))) {
                    if (left-- > 0) {
                        write(record);
                    }
                }
            }
        }
    }

    private static void member(String servers, String topic, String group, List<String> options) {
        var ended = Lines.endOfInput();
        try (var consumer = consumer(servers, group, options)) {
            consumer.subscribe(List.of(topic), new ConsumerRebalanceListener() {
                @Override
                public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
                    // all that was handed out is committed
                }

                @Override
                public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
                    Lines.write(Map.of("assigned", consumer.assignment().stream().map(TopicPartition::partition).sorted().toList()));
                }
            });
            while (!ended.get()) {
                var records = consumer.poll(Duration.ofMillis(200));
                records.forEach(KafkaPeer::write);
                if (!records.isEmpty()) {
                    consumer.commitSync();
                }
            }
        }
    }
}
