"""The suffixes of media files: which files of a folder are videos, sounds or images.

A file that is named by itself is tried whatever its suffix. Opens no file.
"""


def _suffixes(names: str) -> frozenset[str]:
    return frozenset(f".{name}" for name in names.split())


VIDEO_SUFFIXES = _suffixes("""
    3g2 3gp 3gpp amv asf avi bik divx dv evo f4p f4v flv gxf insv ivf lrv m1v m2p m2t m2ts m2v m4v
    mj2 mjpeg mjpg mk3d mkv mod mov mp4 mpe mpeg mpg mpv mts mxf nsv nut ogm ogv ogx ps qt rm rmvb
    roq smk tod tp trp ts vid vob webm wmv wtv y4m
""")

AUDIO_SUFFIXES = _suffixes("""
    3ga aac ac3 adts aif aifc aiff amr ape au bwf caf dff dsf dts eac3 ec3 f4a f4b flac gsm m4a m4b
    m4r mka mlp mp2 mp3 mpc oga ogg opus qcp ra rf64 shn snd spx tak thd tta voc w64 wav weba wma wv
""")

IMAGE_SUFFIXES = _suffixes("""
    apng avif bmp dib gif heic heif hif j2k jfif jp2 jpe jpeg jpg pbm pgm png pnm ppm tif tiff webp
""")

MEDIA_SUFFIXES = VIDEO_SUFFIXES | AUDIO_SUFFIXES | IMAGE_SUFFIXES
