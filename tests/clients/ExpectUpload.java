// Uploads a file by the JDK's HttpClient, which waits for 100 Continue. (It is given the password to send at once: of a
// refusal in place of the 100 the JDK's releases before 20 never tell.)
// Arguments: the address, the user, the file, HTTP_1_1 or HTTP_2. The password is in PASSWORD. Prints the status.
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Base64;

public class ExpectUpload {
    public static void main(String[] arguments) throws Exception {
        String pair = arguments[1] + ":" + System.getenv("PASSWORD");
        String basic = "Basic " + Base64.getEncoder().encodeToString(pair.getBytes(StandardCharsets.UTF_8));
        HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.valueOf(arguments[3])).build();
        HttpRequest request = HttpRequest.newBuilder(URI.create(arguments[0]))
                .header("Authorization", basic)
                .expectContinue(true)
                .timeout(Duration.ofSeconds(40))
                .PUT(HttpRequest.BodyPublishers.ofFile(Path.of(arguments[2])))
                .build();
        System.out.println(client.send(request, HttpResponse.BodyHandlers.discarding()).statusCode());
    }
}
