_base_ = "i3d_kinetics400-pretrained-r50_8xb8-32x2x1-30e_ucf101-split1-rgb.py"

custom_imports = dict(imports=["polynl_mm"], allow_failed_imports=False)
ann_file_train = "data/ucf101/ucf101_train_split_2_videos.txt"
ann_file_val = ann_file_test = "data/ucf101/ucf101_val_split_2_videos.txt"
train_dataloader = dict(dataset=dict(ann_file=ann_file_train))
val_dataloader = dict(dataset=dict(ann_file=ann_file_val))
test_dataloader = dict(dataset=dict(ann_file=ann_file_test))
