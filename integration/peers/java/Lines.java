import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.List;
import java.util.concurrent.atomic.AtomicBoolean;

/** A message is a line of JSON on standard input or output; python/lines.py tells the form. */
final class Lines {
    private static final Gson GSON = new GsonBuilder().serializeNulls().disableHtmlEscaping().create();
    private static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);

    private Lines() {}

    static List<JsonObject> read() throws IOException {
        try (var in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8))) {
            return in.lines().map(line -> JsonParser.parseString(line).getAsJsonObject()).toList();
        }
    }

    static void write(Object message) {
        OUT.println(GSON.toJson(message));
    }

    /** Returns a flag that is set when whoever started this program closes its standard input. */
    static AtomicBoolean endOfInput() {
        var ended = new AtomicBoolean();
        var wait = new Thread(() -> {
            try {
                System.in.transferTo(PrintStream.nullOutputStream());
            } catch (IOException e) {
                // as good as an end
            }
            ended.set(true);
        });
        wait.setDaemon(true);
        wait.start();
        return ended;
    }

    static String encode(byte[] data) {
        return data == null ? null : Base64.getEncoder().encodeToString(data);
    }

    static byte[] decode(JsonElement text) {
        return text == null || text.isJsonNull() ? null : Base64.getDecoder().decode(text.getAsString());
    }
}
