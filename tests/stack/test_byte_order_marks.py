from polynl_mm.stack.byte_order_marks import ignore_byte_order_marks


def test_first_video_of_a_list_with_a_mark(tmp_path):
    from mmaction.datasets import RawframeDataset, VideoDataset

    ignore_byte_order_marks()
    ignore_byte_order_marks()
    videos, frames = tmp_path / "videos.txt", tmp_path / "frames.txt"
    videos.write_text("a.mp4 3\nb.mp4 1\n", encoding="utf-8-sig")
    frames.write_text("a 7 3\nb 8 1\n", encoding="utf-8-sig")
    found = VideoDataset(str(videos), pipeline=[])
    assert [found.get_data_info(i)["filename"] for i in range(2)] == ["a.mp4", "b.mp4"]
    found = RawframeDataset(str(frames), pipeline=[])
    assert found.get_data_info(0)["frame_dir"] == "a"
