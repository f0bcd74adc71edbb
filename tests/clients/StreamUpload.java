// Uploads a file by Apache's HttpClient as sardine does (Cyberduck, Duplicati): from a stream that can be read only once,
// waiting for 100 Continue, with a password that is sent only once it was asked for.
// Arguments: the address, the user, the file. The password is in PASSWORD. Prints the status.
import java.io.FileInputStream;
import java.io.InputStream;
import org.apache.http.auth.AuthScope;
import org.apache.http.auth.UsernamePasswordCredentials;
import org.apache.http.client.config.RequestConfig;
import org.apache.http.client.methods.CloseableHttpResponse;
import org.apache.http.client.methods.HttpPut;
import org.apache.http.entity.InputStreamEntity;
import org.apache.http.impl.client.BasicCredentialsProvider;
import org.apache.http.impl.client.CloseableHttpClient;
import org.apache.http.impl.client.HttpClients;

public class StreamUpload {
    public static void main(String[] arguments) throws Exception {
        BasicCredentialsProvider password = new BasicCredentialsProvider();
        password.setCredentials(AuthScope.ANY, new UsernamePasswordCredentials(arguments[1], System.getenv("PASSWORD")));
        HttpPut request = new HttpPut(arguments[0]);
        request.setConfig(RequestConfig.custom().setExpectContinueEnabled(true).setSocketTimeout(40_000).build());
        try (CloseableHttpClient client = HttpClients.custom().setDefaultCredentialsProvider(password).build();
                InputStream body = new FileInputStream(arguments[2])) {
            request.setEntity(new InputStreamEntity(body));
            try (CloseableHttpResponse response = client.execute(request)) {
                System.out.println(response.getStatusLine().getStatusCode());
            }
        }
    }
}
