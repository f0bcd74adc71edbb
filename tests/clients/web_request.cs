// Uploads a file as KeePass does: by .NET's HttpWebRequest with a password that is sent only once it was asked for.
// Arguments: the address, the user, the file. The password is in PASSWORD. Prints the status.
using System;
using System.IO;
using System.Net;

class WebRequestUpload
{
    static int Main(string[] arguments)
    {
        var request = (HttpWebRequest)WebRequest.Create(arguments[0]);
        request.Method = "PUT";
        request.Credentials = new NetworkCredential(arguments[1], Environment.GetEnvironmentVariable("PASSWORD"));
        byte[] content = File.ReadAllBytes(arguments[2]);
        try
        {
            using (Stream body = request.GetRequestStream())
                body.Write(content, 0, content.Length);
            using (var response = (HttpWebResponse)request.GetResponse())
                Console.WriteLine((int)response.StatusCode);
            return 0;
        }
        catch (WebException error)
        {
            Console.Error.WriteLine(error.Status + ": " + error.Message);
            return 1;
        }
    }
}
