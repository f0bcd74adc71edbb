<?php
// An SFTP session with phpseclib; the endpoint comes as JSON on standard input, the remote folder as argument.

require '/usr/share/php/phpseclib3/autoload.php';

use phpseclib3\Net\SFTP;

function must($condition, $reason)
{
    if (!$condition) {
        fwrite(STDERR, "$reason\n");
        exit(1);
    }
}

$end = json_decode(stream_get_contents(STDIN), true);
$sftp = new SFTP($end['host'], (int) $end['port'], 20);
must($sftp->login($end['user'], $end['password']), 'the token is refused');
must($sftp->chdir($argv[1]), 'the folder is not there');

$data = random_bytes(3000001);
must($sftp->put('file ünï', $data), 'put failed');
must($sftp->get('file ünï') === $data, 'the file came back different');
must($sftp->get('file ünï', false, 70000, 9) === substr($data, 70000, 9), 'a part differs');
must($sftp->put('cut', substr($data, 0, 1000000)), 'put failed');
must($sftp->put('cut', substr($data, 1000000), SFTP::SOURCE_STRING | SFTP::RESUME), 'resume failed');
must($sftp->get('cut') === $data, 'a transfer that was resumed brought something else');

must($sftp->touch('cut', 981173106) && $sftp->filemtime('cut') === 981173106, 'the time was not kept');
must($sftp->chmod(0640, 'cut') !== false && ($sftp->fileperms('cut') & 0777) === 0640, 'the mode was not kept');
must($sftp->mkdir('sub/deep', -1, true) && $sftp->rename('cut', 'sub/deep/moved'), 'mkdir or rename failed');
must($sftp->symlink('file ünï', 'link') && $sftp->readlink('link') === 'file ünï', 'the link is the wrong way round');
must($sftp->get('link') === $data, 'the link leads somewhere else');
must($sftp->is_link('link') && $sftp->is_dir('sub') && !$sftp->file_exists('nothing'), 'what is there differs');

$names = array_diff($sftp->nlist('.', true), ['.', '..']);
sort($names);
must(in_array('sub/deep/moved', $names) && in_array('file ünï', $names), 'the listing shows ' . json_encode($names));
must(!$sftp->get('nothing') && !$sftp->rmdir('sub'), 'what must fail did not');
must($sftp->delete('sub', true) && !$sftp->file_exists('sub'), 'the folder is still there');
