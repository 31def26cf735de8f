import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringSerializer;

/** For test.sh, run from source: `Records BROKER create|produce|count TOPIC`. */
class Records {
    public static void main(String[] arguments) throws Exception {
        Map<String, Object> settings = Map.of("bootstrap.servers", arguments[0]);
        String topic = arguments[2];
        switch (arguments[1]) {
            case "create" -> create(settings, topic);
            case "produce" -> produce(settings, topic);
            case "count" -> System.out.println(count(settings, topic));
            default -> throw new IllegalArgumentException(arguments[1]);
        }
    }

    private static void create(Map<String, Object> settings, String topic) throws Exception {
        try (Admin admin = Admin.create(settings)) {
            admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1))).all().get();
        }
    }

    /** A thousand records, each acknowledged. */
    private static void produce(Map<String, Object> settings, String topic) throws Exception {
        var text = new StringSerializer();
        Map<String, Object> impatient = new HashMap<>(settings);
        impatient.put("max.block.ms", 3000);
        try (var producer = new KafkaProducer<>(impatient, text, text)) {
            var last = producer.send(new ProducerRecord<>(topic, "0"));
            last.get(); // is there such a topic at all?
            for (int i = 1; i < 1000; i++) {
                last = producer.send(new ProducerRecord<>(topic, Integer.toString(i)));
            }
            last.get();
        }
    }

    private static long count(Map<String, Object> settings, String topic) throws Exception {
        var partition = new TopicPartition(topic, 0);
        try (Admin admin = Admin.create(settings)) {
            return admin.listOffsets(Map.of(partition, OffsetSpec.latest())).partitionResult(partition).get().offset();
        }
    }
}
